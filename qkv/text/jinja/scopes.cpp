// Which variable a name means. Jinja decides it before a template runs: a name that a scope sets anywhere
// belongs to that scope, and what it holds before depends on what was read or set first. Templates rely on
// that (and on its surprises: a macro above {% set x %} sees no variable x of the render), so the same
// analysis is made here.
#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/parser.h"

namespace qkv::jinja {
namespace {

[[noreturn]] void fail_at(int line, const std::string& what) {
  Failure failure(FailureKind::syntax, what);
  failure.line = line;
  throw failure;
}

// ---- walking ----

using NameVisitor = std::function<void(const std::string& name, bool is_load)>;

void walk_names(const Expression* expression, const NameVisitor& visit) {
  if (expression == nullptr) return;
  if (expression->kind == ExpressionKind::name) visit(expression->text, true);
  for (const auto& part : expression->parts) walk_names(part.get(), visit);
  for (const auto& argument : expression->arguments) walk_names(argument.value.get(), visit);
}

void walk_names(const Target& target, const NameVisitor& visit) {
  if (target.kind == Target::Kind::name) visit(target.name, false);
  for (const Target& item : target.items) walk_names(item, visit);
}

void walk_names(const Body& body, const NameVisitor& visit);

// In the order in which Jinja's visitors see the parts of a statement.
void walk_names(const Statement& statement, const NameVisitor& visit) {
  const bool filters_last = statement.kind == StatementKind::filter_block;
  for (const Target& target : statement.targets) walk_names(target, visit);
  if (!filters_last) {
    for (const auto& expression : statement.expressions) walk_names(expression.get(), visit);
  }
  walk_names(statement.iterable.get(), visit);
  for (const std::string& parameter : statement.parameters) visit(parameter, false);
  for (const auto& expression : statement.defaults) walk_names(expression.get(), visit);
  for (const Branch& branch : statement.branches) {
    walk_names(branch.condition.get(), visit);
    walk_names(branch.body, visit);
  }
  walk_names(statement.body, visit);
  walk_names(statement.otherwise, visit);
  walk_names(statement.test.get(), visit);
  if (filters_last) {
    for (const auto& expression : statement.expressions) walk_names(expression.get(), visit);
  }
}

void walk_names(const Body& body, const NameVisitor& visit) {
  for (const auto& statement : body) walk_names(*statement, visit);
}

// Those of `names` that the body reads before it sets them.
std::set<std::string> read_before_set(const Body& body, std::set<std::string> names) {
  std::set<std::string> found;
  walk_names(body, [&](const std::string& name, bool is_load) {
    if (is_load && names.count(name) > 0) {
      found.insert(name);
    } else if (!is_load) {
      names.erase(name);
    }
  });
  return found;
}

// ---- the names of one scope ----

struct Frame {
  const Frame* parent = nullptr;
  const Frame* base = nullptr;  // a branch of an if: the same scope as `base`, seen up to here
  std::map<std::string, SlotLoad> names;
  std::set<std::string> stores;
  std::map<std::string, int> slots;

  Frame branch() const {
    Frame result;
    result.parent = parent;
    result.base = this;
    return result;
  }
  bool has(const std::string& name) const {
    return names.count(name) > 0 || (base != nullptr && base->has(name));
  }
  bool has_stored(const std::string& name) const {
    return stores.count(name) > 0 || (base != nullptr && base->has_stored(name));
  }
  bool outside_knows(const std::string& name) const {
    return parent != nullptr && (parent->has(name) || parent->outside_knows(name));
  }
  void parameter(const std::string& name) {
    stores.insert(name);
    names[name] = SlotLoad::parameter;
  }
  void load(const std::string& name) {
    if (!has(name) && !outside_knows(name)) names[name] = SlotLoad::variable;
  }
  void store(const std::string& name) {
    stores.insert(name);
    if (!has(name)) names[name] = outside_knows(name) ? SlotLoad::outer : SlotLoad::nothing;
  }
  void merge(const std::vector<Frame>& branches) {
    std::map<std::string, size_t> counts;
    for (const Frame& branch : branches) {
      for (const auto& name : branch.stores) {
        if (!has_stored(name)) ++counts[name];
      }
    }
    for (const Frame& branch : branches) {
      for (const auto& [name, load] : branch.names) names[name] = load;
      stores.insert(branch.stores.begin(), branch.stores.end());
    }
    // What only some branches set keeps its outer value in the others.
    for (const auto& [name, count] : counts) {
      if (count < branches.size()) names[name] = outside_knows(name) ? SlotLoad::outer : SlotLoad::variable;
    }
  }
  Variable find(const std::string& name) const {
    Variable variable;
    for (const Frame* frame = this; frame != nullptr; frame = frame->parent, ++variable.hops) {
      const auto it = frame->slots.find(name);
      if (it == frame->slots.end()) continue;
      variable.slot = it->second;
      return variable;
    }
    return {};
  }
  ScopeLayout layout() {
    ScopeLayout result;
    for (const auto& [name, load] : names) {
      slots[name] = static_cast<int>(result.slots.size());
      ScopeLayout::Slot slot;
      slot.name = name;
      slot.load = load;
      if (load == SlotLoad::outer) {
        slot.outer = parent->find(name);
        ++slot.outer.hops;
      }
      result.slots.push_back(std::move(slot));
    }
    return result;
  }
};

void collect(Frame& frame, const Expression* expression) {
  walk_names(expression, [&](const std::string& name, bool) { frame.load(name); });
}

void collect(Frame& frame, const Target& target, bool as_parameter) {
  switch (target.kind) {
    case Target::Kind::name:
      if (as_parameter) {
        frame.parameter(target.name);
      } else {
        frame.store(target.name);
      }
      break;
    case Target::Kind::attribute:
      frame.load(target.name);
      break;
    case Target::Kind::tuple:
      for (const Target& item : target.items) collect(frame, item, as_parameter);
      break;
  }
}

void collect(Frame& frame, const Body& body);

void collect_if(Frame& frame, const std::vector<Branch>& branches) {
  collect(frame, branches[0].condition.get());
  // Three branches: the body, all elifs together, else.
  std::vector<Frame> parts(3, frame.branch());
  collect(parts[0], branches[0].body);
  size_t next = 1;
  for (; next < branches.size() && branches[next].condition != nullptr; ++next) {
    // An elif is an if of its own, without others.
    Frame& elif = parts[1];
    collect(elif, branches[next].condition.get());
    std::vector<Frame> inner(3, elif.branch());
    collect(inner[0], branches[next].body);
    elif.merge(inner);
  }
  if (next < branches.size()) collect(parts[2], branches[next].body);
  frame.merge(parts);
}

// What a statement reads and sets in the scope that it stands in; its own scopes are looked at later.
void collect(Frame& frame, const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::output:
    case StatementKind::filter_block:
    case StatementKind::with:
    case StatementKind::call_block:
      for (const auto& expression : statement.expressions) collect(frame, expression.get());
      break;
    case StatementKind::for_loop:
      collect(frame, statement.iterable.get());
      break;
    case StatementKind::if_chain:
      collect_if(frame, statement.branches);
      break;
    case StatementKind::set:
      collect(frame, statement.expressions[0].get());
      collect(frame, statement.targets[0], false);
      break;
    case StatementKind::set_block:
      collect(frame, statement.targets[0], false);
      break;
    case StatementKind::macro:
      frame.store(statement.name);
      break;
    case StatementKind::break_loop:
    case StatementKind::continue_loop:
    case StatementKind::generation:
      break;
  }
}

void collect(Frame& frame, const Body& body) {
  for (const auto& statement : body) collect(frame, *statement);
}

// ---- resolving ----

void resolve(const Frame& frame, Expression* expression, bool soft) {
  if (expression == nullptr) return;
  if (expression->kind == ExpressionKind::name) expression->variable = frame.find(expression->text);
  const bool inner_soft = soft || expression->kind == ExpressionKind::conditional;
  // Within a condition, an unknown filter is an error only when it runs.
  if (!soft && expression->kind == ExpressionKind::filter && !is_filter(expression->text))
    fail_at(expression->line, fmt::format("there is no filter '{}'", expression->text));
  if (!soft && expression->kind == ExpressionKind::test && !is_test(expression->text))
    fail_at(expression->line, fmt::format("there is no test '{}'", expression->text));
  for (const auto& part : expression->parts) resolve(frame, part.get(), inner_soft);
  for (const auto& argument : expression->arguments) resolve(frame, argument.value.get(), inner_soft);
}

void resolve(const Frame& frame, Target& target) {
  if (target.kind != Target::Kind::tuple) target.variable = frame.find(target.name);
  for (Target& item : target.items) resolve(frame, item);
}

void resolve(const Frame& frame, Body& body, bool soft);

void resolve_loop(const Frame& frame, Statement& loop, bool soft) {
  const auto refuse = [&](const std::string& name, bool is_load) {
    if (!is_load && name == "loop")
      fail_at(loop.line, "the special variable 'loop' cannot be assigned to within a loop");
  };
  for (const Target& target : loop.targets) walk_names(target, refuse);
  resolve(frame, loop.iterable.get(), soft);

  Frame inner;
  inner.parent = &frame;
  const bool uses_loop = loop.recursive || read_before_set(loop.body, {"loop"}).count("loop") > 0;
  if (uses_loop) inner.parameter("loop");
  for (const Target& target : loop.targets) collect(inner, target, true);
  collect(inner, loop.body);
  loop.scope = inner.layout();
  if (uses_loop) loop.loop_slot = inner.slots.at("loop");
  for (Target& target : loop.targets) resolve(inner, target);
  resolve(inner, loop.body, false);

  if (loop.test) {
    Frame test;
    test.parent = &frame;
    for (const Target& target : loop.targets) collect(test, target, true);
    collect(test, loop.test.get());
    loop.test_scope = test.layout();
    resolve(test, loop.test.get(), false);
  }
  Frame otherwise;
  otherwise.parent = &frame;
  collect(otherwise, loop.otherwise);
  loop.otherwise_scope = otherwise.layout();
  resolve(otherwise, loop.otherwise, false);
}

// Macros, call blocks and generation blocks: functions whose parameters are variables of their scope.
void resolve_function(const Frame& frame, Statement& function) {
  Frame inner;
  inner.parent = &frame;
  for (const std::string& parameter : function.parameters) inner.parameter(parameter);
  for (const auto& expression : function.defaults) collect(inner, expression.get());
  collect(inner, function.body);
  const auto special = read_before_set(function.body, {"caller", "kwargs", "varargs"});
  const auto declared = [&](const std::string& name) {
    const auto it = std::find(function.parameters.begin(), function.parameters.end(), name);
    return it == function.parameters.end() ? -1 : static_cast<int>(it - function.parameters.begin());
  };
  const size_t required = function.parameters.size() - function.defaults.size();
  for (const std::string& name : special) {
    const int index = declared(name);
    if (index < 0) inner.parameter(name);
    if (name == "caller" && index >= 0 && static_cast<size_t>(index) < required)
      fail_at(function.line, "a parameter named 'caller' must have a default");
  }
  function.scope = inner.layout();
  const auto slot_of = [&](const std::string& name) {
    return special.count(name) > 0 && declared(name) < 0 ? inner.slots.at(name) : -1;
  };
  function.caller_slot = slot_of("caller");
  function.kwargs_slot = slot_of("kwargs");
  function.varargs_slot = slot_of("varargs");
  for (const std::string& parameter : function.parameters)
    function.parameter_slots.push_back(inner.slots.at(parameter));
  for (const auto& expression : function.defaults) resolve(inner, expression.get(), false);
  resolve(inner, function.body, false);
}

void resolve(const Frame& frame, Statement& statement, bool soft) {
  Frame inner;
  inner.parent = &frame;
  switch (statement.kind) {
    case StatementKind::output:
      for (const auto& expression : statement.expressions) resolve(frame, expression.get(), soft);
      break;
    case StatementKind::for_loop:
      resolve_loop(frame, statement, soft);
      break;
    case StatementKind::if_chain:
      for (Branch& branch : statement.branches) {
        resolve(frame, branch.condition.get(), true);
        resolve(frame, branch.body, true);
      }
      break;
    case StatementKind::set:
      resolve(frame, statement.expressions[0].get(), soft);
      resolve(frame, statement.targets[0]);
      break;
    case StatementKind::set_block:
      collect(inner, statement.expressions[0].get());
      collect(inner, statement.body);
      statement.scope = inner.layout();
      resolve(frame, statement.targets[0]);
      resolve(inner, statement.expressions[0].get(), false);
      resolve(inner, statement.body, false);
      break;
    case StatementKind::filter_block:
      collect(inner, statement.body);
      collect(inner, statement.expressions[0].get());
      statement.scope = inner.layout();
      resolve(inner, statement.expressions[0].get(), false);
      resolve(inner, statement.body, false);
      break;
    case StatementKind::with:
      for (const auto& expression : statement.expressions) resolve(frame, expression.get(), soft);
      for (const Target& target : statement.targets) collect(inner, target, true);
      collect(inner, statement.body);
      statement.scope = inner.layout();
      for (Target& target : statement.targets) resolve(inner, target);
      resolve(inner, statement.body, false);
      break;
    case StatementKind::macro:
      statement.variable = frame.find(statement.name);
      resolve_function(frame, statement);
      break;
    case StatementKind::call_block:
      for (const auto& expression : statement.expressions) resolve(frame, expression.get(), soft);
      resolve_function(frame, statement);
      break;
    case StatementKind::generation:
      resolve_function(frame, statement);
      break;
    case StatementKind::break_loop:
    case StatementKind::continue_loop:
      break;
  }
}

void resolve(const Frame& frame, Body& body, bool soft) {
  for (const auto& statement : body) resolve(frame, *statement, soft);
}

}  // namespace

void resolve_names(Syntax& syntax) {
  Frame root;
  collect(root, syntax.body);
  syntax.scope = root.layout();
  resolve(root, syntax.body, false);
}

}  // namespace qkv::jinja
