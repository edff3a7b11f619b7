// Statements.
#include "qkv/text/jinja/interpreter.h"

#include "qkv/text/jinja/depth.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/loop_and_macro.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

std::vector<Value> unpack(Heap& heap, const Value& value, size_t count) {
  if (!is_iterable(value)) type_error("cannot unpack non-iterable {} object", type_name(value));
  std::vector<Value> items = to_vector(heap, value);
  if (items.size() < count)
    value_error("not enough values to unpack (expected {}, got {})", count, items.size());
  if (items.size() > count) value_error("too many values to unpack (expected {})", count);
  return items;
}

}  // namespace

// The items of a loop for which its `if` holds.
class LoopFilter final : public Iterator {
 public:
  LoopFilter(Interpreter& interpreter, std::shared_ptr<Iterator> source, const Statement& loop,
             ScopePtr scope)
      : interpreter_(interpreter), source_(std::move(source)), loop_(loop), scope_(std::move(scope)) {
    nesting = source_->nesting + 1;
  }
  bool next(Value& item) override {
    while (source_->next(item)) {
      interpreter_.budget().step();
      const ScopePtr inner = interpreter_.enter(loop_.test_scope, scope_);
      // The loop's targets were resolved for its body; by name they are in this scope too.
      assign_by_name(loop_.targets[0], item, *inner);
      if (truth(interpreter_.evaluate(*loop_.test, inner))) return true;
    }
    return false;
  }

 private:
  void assign_by_name(const Target& target, const Value& value, Scope& scope) {
    if (target.kind == Target::Kind::tuple) {
      const std::vector<Value> items = unpack(interpreter_.heap(), value, target.items.size());
      for (size_t i = 0; i < items.size(); ++i) assign_by_name(target.items[i], items[i], scope);
      return;
    }
    for (size_t i = 0; i < loop_.test_scope.slots.size(); ++i) {
      if (loop_.test_scope.slots[i].name == target.name) scope.slots[i] = value;
    }
  }

 private:
  Interpreter& interpreter_;
  std::shared_ptr<Iterator> source_;
  const Statement& loop_;
  ScopePtr scope_;
};

Interpreter::~Interpreter() {
  // All at once: each object is emptied before any of what it held goes.
  std::vector<Value> values;
  for (const auto& object : pinned_) {
    if (auto* name_space = dynamic_cast<Namespace*>(object.get())) {
      for (auto& [name, value] : name_space->attributes) values.push_back(std::move(value));
      name_space->attributes.clear();
    } else if (auto* special = dynamic_cast<Special*>(object.get())) {
      special->release(values);
    }
  }
}

std::shared_ptr<Text> Interpreter::run(const Syntax& syntax) {
  try {
    const ScopePtr root = enter(syntax.scope, nullptr);
    TextBuilder out(budget());
    execute(syntax.body, root, out);
    return out.finish();
  } catch (Failure& failure) {
    if (failure.line == 0) failure.line = line_;
    throw;
  }
}

// ---- scopes ----

Value& Interpreter::slot(Scope& scope, const Variable& variable) {
  Scope* at = &scope;
  for (int i = 0; i < variable.hops; ++i) at = at->parent.get();
  return at->slots[static_cast<size_t>(variable.slot)];
}

void Interpreter::reset(const ScopeLayout& layout, Scope& scope) {
  scope.slots.resize(layout.slots.size());
  for (size_t i = 0; i < layout.slots.size(); ++i) {
    const auto& info = layout.slots[i];
    switch (info.load) {
      case SlotLoad::parameter:
      case SlotLoad::nothing:
        scope.slots[i] = Value();
        break;
      case SlotLoad::variable:
        scope.slots[i] = variable(info.name);
        break;
      case SlotLoad::outer:
        scope.slots[i] = slot(scope, info.outer);
        break;
    }
  }
}

ScopePtr Interpreter::enter(const ScopeLayout& layout, const ScopePtr& parent) {
  budget().allocate(sizeof(Scope) + layout.slots.size() * sizeof(Value));
  auto scope = std::make_shared<Scope>();
  scope->parent = parent;
  reset(layout, *scope);
  return scope;
}

Value Interpreter::variable(std::string_view name) {
  const std::string key(name);
  if (const auto it = variables_.find(key); it != variables_.end()) return it->second;
  if (const auto it = globals_.find(key); it != globals_.end()) return it->second;
  const auto global = find_global(heap_, name);
  if (!global) return {};
  globals_.emplace(key, *global);
  return *global;
}

void Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  switch (target.kind) {
    case Target::Kind::name:
      slot(scope, target.variable) = value;
      break;
    case Target::Kind::attribute: {
      const Value& holder = target.variable.slot < 0 ? Value() : slot(scope, target.variable);
      if (!holder.is(Kind::name_space))
        fail_as(FailureKind::type, "cannot assign attribute on non-namespace object '{}'", target.name);
      budget().allocate(sizeof(Value) + target.attribute.size());
      holder.name_space().set(target.attribute, value);
      break;
    }
    case Target::Kind::tuple: {
      const std::vector<Value> items = unpack(heap_, value, target.items.size());
      for (size_t i = 0; i < items.size(); ++i) assign(target.items[i], items[i], scope);
      break;
    }
  }
}

// ---- statements ----

Interpreter::Flow Interpreter::execute(const Body& body, const ScopePtr& scope, TextBuilder& out) {
  const Depth depth(*this);
  for (const auto& statement : body) {
    const Flow flow = execute(*statement, scope, out);
    if (flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, const ScopePtr& scope, TextBuilder& out) {
  line_ = statement.line;
  budget().step();
  switch (statement.kind) {
    case StatementKind::output:
      write(statement, scope, out);
      break;
    case StatementKind::if_chain:
      return choose(statement, scope, out);
    case StatementKind::for_loop:
      return repeat(statement, scope, out, evaluate(*statement.iterable, scope), 0);
    case StatementKind::set:
      assign(statement.targets[0], evaluate(*statement.expressions[0], scope), *scope);
      break;
    case StatementKind::set_block:
      return set_block(statement, scope);
    case StatementKind::filter_block:
      return filter_block(statement, scope, out);
    case StatementKind::with:
      return with_block(statement, scope, out);
    case StatementKind::macro:
      slot(*scope, statement.variable) = make_macro(statement, scope);
      break;
    case StatementKind::call_block:
      call_block(statement, scope, out);
      break;
    case StatementKind::break_loop:
      return Flow::break_loop;
    case StatementKind::continue_loop:
      return Flow::continue_loop;
    case StatementKind::generation: {
      const size_t begin = out.size();
      execute(statement.body, enter(statement.scope, scope), out);
      out.mark_from(begin, kGenerationTag);
      break;
    }
  }
  return Flow::normal;
}

void Interpreter::write(const Statement& output, const ScopePtr& scope, TextBuilder& out) {
  for (const auto& expression : output.expressions) {
    append_text(out, evaluate(*expression, scope));
    if (out.size() > limits_.max_output_bytes)
      fail_as(FailureKind::limit, "the output is longer than {} bytes", limits_.max_output_bytes);
  }
}

Interpreter::Flow Interpreter::choose(const Statement& statement, const ScopePtr& scope, TextBuilder& out) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition == nullptr || truth(evaluate(*branch.condition, scope)))
      return execute(branch.body, scope, out);
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::repeat(const Statement& loop, const ScopePtr& scope, TextBuilder& out,
                                      const Value& iterable, int64_t depth) {
  std::shared_ptr<Iterator> iterator = iterate(heap_, iterable);
  Value measured = iterable;
  if (loop.test) {
    iterator = std::make_shared<LoopFilter>(*this, std::move(iterator), loop, scope);
    measured = Value();
  }
  std::shared_ptr<Loop> special;
  if (loop.loop_slot >= 0) {
    budget().allocate(sizeof(Loop));
    special = std::make_shared<Loop>(iterator, measured, depth, loop.recursive ? &loop : nullptr, scope);
  }
  ScopePtr inner;
  bool whole_iteration = false;  // Jinja runs `else` if no iteration came to its end
  for (Value item; special ? special->next(item) : iterator->next(item);) {
    budget().step();
    if (inner == nullptr || inner.use_count() > 1) {
      inner = enter(loop.scope, scope);
    } else {
      reset(loop.scope, *inner);
    }
    if (special) inner->slots[static_cast<size_t>(loop.loop_slot)] = Value(Kind::special, special);
    assign(loop.targets[0], item, *inner);
    const Flow flow = execute(loop.body, inner, out);
    if (flow == Flow::break_loop) break;
    if (flow == Flow::normal) whole_iteration = true;
  }
  if (whole_iteration || loop.otherwise.empty()) return Flow::normal;
  return execute(loop.otherwise, enter(loop.otherwise_scope, scope), out);
}

Interpreter::Flow Interpreter::set_block(const Statement& statement, const ScopePtr& scope) {
  const ScopePtr inner = enter(statement.scope, scope);
  TextBuilder text(budget());
  const Flow flow = execute(statement.body, inner, text);
  if (flow != Flow::normal) return flow;
  Value value(text.finish());
  if (statement.expressions[0]) value = filter_text(*statement.expressions[0], std::move(value), inner);
  assign(statement.targets[0], value, *scope);
  return Flow::normal;
}

Interpreter::Flow Interpreter::filter_block(const Statement& statement, const ScopePtr& scope,
                                            TextBuilder& out) {
  const ScopePtr inner = enter(statement.scope, scope);
  TextBuilder text(budget());
  const Flow flow = execute(statement.body, inner, text);
  if (flow != Flow::normal) return flow;
  append_text(out, filter_text(*statement.expressions[0], Value(text.finish()), inner));
  return Flow::normal;
}

Interpreter::Flow Interpreter::with_block(const Statement& statement, const ScopePtr& scope,
                                          TextBuilder& out) {
  const ScopePtr inner = enter(statement.scope, scope);
  for (size_t i = 0; i < statement.targets.size(); ++i)
    assign(statement.targets[i], evaluate(*statement.expressions[i], scope), *inner);
  return execute(statement.body, inner, out);
}

void Interpreter::call_block(const Statement& statement, const ScopePtr& scope, TextBuilder& out) {
  const Value caller = make_macro(statement, scope);
  append_text(out, evaluate_call(*statement.expressions[0], scope, &caller));
}

Value Interpreter::make_macro(const Statement& statement, const ScopePtr& scope) {
  budget().allocate(sizeof(Macro));
  auto macro = std::make_shared<Macro>(statement, scope);
  pin(macro);  // the scope that it keeps will keep it
  return Value(Kind::special, std::move(macro));
}

}  // namespace qkv::jinja
