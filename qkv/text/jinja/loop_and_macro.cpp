// Calls of macros with Python's rules for arguments, and what `loop` knows.
#include "qkv/text/jinja/loop_and_macro.h"

#include <algorithm>

#include "qkv/text/jinja/depth.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

// loop.cycle and loop.changed
class LoopMethod final : public Special {
 public:
  LoopMethod(std::shared_ptr<Loop> loop, bool cycle) : loop_(std::move(loop)), cycle_(cycle) {
    nesting = loop_->nesting + 1;
  }
  std::string_view type_name() const override { return "method"; }
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, CallArguments& arguments) override {
    return cycle_ ? loop_->cycle(arguments) : loop_->changed(interpreter, arguments);
  }

 private:
  std::shared_ptr<Loop> loop_;
  bool cycle_;
};

Value take_named(CallArguments& arguments, std::string_view name) {
  const auto it = std::find_if(arguments.named.begin(), arguments.named.end(),
                               [&](const auto& argument) { return argument.first == name; });
  if (it == arguments.named.end()) return {};
  Value value = std::move(it->second);
  arguments.named.erase(it);
  return value;
}

}  // namespace

// ---- macros ----

std::string Macro::representation() const {
  return statement_.name.empty() ? "<Macro anonymous>" : fmt::format("<Macro {}>", quoted(statement_.name));
}

std::optional<Value> Macro::attribute(Interpreter& interpreter, std::string_view name) {
  if (name == "name")
    return statement_.name.empty() ? Value::none() : interpreter.heap().text(statement_.name);
  if (name == "arguments") {
    std::vector<Value> names;
    for (const auto& parameter : statement_.parameters) names.push_back(interpreter.heap().text(parameter));
    return interpreter.heap().tuple(std::move(names));
  }
  if (name == "catch_kwargs") return Value(statement_.kwargs_slot >= 0);
  if (name == "catch_varargs") return Value(statement_.varargs_slot >= 0);
  if (name == "caller") return Value(statement_.caller_slot >= 0);
  return std::nullopt;
}

Value Macro::call(Interpreter& interpreter, CallArguments& arguments) {
  const Interpreter::Depth depth(interpreter);
  const size_t count = statement_.parameters.size();
  const auto name = [&] { return statement_.name.empty() ? std::string("None") : quoted(statement_.name); };
  const ScopePtr scope = interpreter.enter(statement_.scope, closure_);
  const auto slot = [&](int index) -> Value& { return scope->slots[static_cast<size_t>(index)]; };

  const size_t given = std::min(count, arguments.positional.size());
  for (size_t i = 0; i < count; ++i) {
    slot(statement_.parameter_slots[i]) =
        i < given ? arguments.positional[i] : take_named(arguments, statement_.parameters[i]);
  }
  if (statement_.caller_slot >= 0) {
    Value caller = take_named(arguments, "caller");
    if (caller.is(Kind::missing) || caller.is(Kind::none)) caller = Value::undefined("No caller defined");
    slot(statement_.caller_slot) = std::move(caller);
  }
  if (statement_.kwargs_slot >= 0) {
    auto dict = std::make_shared<Dict>();
    for (auto& [key, value] : arguments.named) dict->set(interpreter.heap().text(key), value);
    slot(statement_.kwargs_slot) = interpreter.heap().dict(std::move(dict));
  } else if (!arguments.named.empty()) {
    const auto& unknown = arguments.named.front().first;
    if (std::any_of(arguments.named.begin(), arguments.named.end(),
                    [](const auto& a) { return a.first == "caller"; }))
      type_error("macro {} takes no caller: its text does not use caller()", name());
    type_error("macro {} takes no keyword argument {}", name(), quoted(unknown));
  }
  if (statement_.varargs_slot >= 0) {
    slot(statement_.varargs_slot) = interpreter.heap().tuple(
        {arguments.positional.begin() + static_cast<ptrdiff_t>(given), arguments.positional.end()});
  } else if (arguments.positional.size() > count) {
    type_error("macro {} takes not more than {} argument(s)", name(), count);
  }

  const size_t required = count - statement_.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    Value& value = slot(statement_.parameter_slots[i]);
    if (!value.is(Kind::missing)) continue;
    if (i < required) {
      value =
          Value::undefined(fmt::format("parameter {} was not provided", quoted(statement_.parameters[i])));
    } else {
      Value fallback = interpreter.evaluate(*statement_.defaults[i - required], scope);
      slot(statement_.parameter_slots[i]) = std::move(fallback);
    }
  }
  TextBuilder out(interpreter.budget());
  interpreter.execute(statement_.body, scope, out);
  return out.finish();
}

void Macro::release(std::vector<Value>&) {
  closure_.reset();
}

// ---- loop ----

Loop::Loop(std::shared_ptr<Iterator> iterator, Value iterable, int64_t depth, const Statement* recursive,
           ScopePtr scope)
    : iterator_(std::move(iterator)),
      iterable_(std::move(iterable)),
      depth_(depth),
      recursive_(recursive),
      scope_(std::move(scope)) {
  nesting = std::max(iterator_->nesting, iterable_.nesting()) + 1;
}

bool Loop::next(Value& item) {
  if (!after_.is(Kind::missing)) {
    item = std::exchange(after_, Value());
  } else if (!iterator_->next(item)) {
    return false;
  }
  ++index_;
  before_ = std::exchange(current_, item);
  return true;
}

bool Loop::peek() {
  if (!after_.is(Kind::missing)) return true;
  Value next;
  if (!iterator_->next(next)) return false;
  after_ = std::move(next);
  return true;
}

int64_t Loop::size(Interpreter& interpreter) {
  if (size_) return *size_;
  if (const auto known = try_length(iterable_)) {
    size_ = known;
  } else {
    std::vector<Value> rest;
    for (Value item; iterator_->next(item);) {
      interpreter.budget().step();
      interpreter.budget().allocate(sizeof(Value));
      rest.push_back(std::move(item));
    }
    size_ = static_cast<int64_t>(rest.size()) + index_ + 1 + (after_.is(Kind::missing) ? 0 : 1);
    iterator_ = iterate_vector(interpreter.heap(), std::move(rest));
  }
  return *size_;
}

std::string Loop::representation() const {
  return fmt::format("<LoopContext {}>", index_ + 1);
}

std::optional<Value> Loop::attribute(Interpreter& interpreter, std::string_view name) {
  if (name == "index0") return Value(index_);
  if (name == "index") return Value(index_ + 1);
  if (name == "first") return Value(index_ == 0);
  if (name == "last") return Value(!peek());
  if (name == "length") return Value(size(interpreter));
  if (name == "revindex0") return Value(size(interpreter) - index_ - 1);
  if (name == "revindex") return Value(size(interpreter) - index_);
  if (name == "depth0") return Value(depth_);
  if (name == "depth") return Value(depth_ + 1);
  if (name == "previtem") return index_ == 0 ? Value::undefined("there is no previous item") : before_;
  if (name == "nextitem") return peek() ? after_ : Value::undefined("there is no next item");
  if (name == "cycle" || name == "changed") {
    interpreter.budget().allocate(sizeof(LoopMethod));
    return Value(Kind::special, std::make_shared<LoopMethod>(shared_from_this(), name == "cycle"));
  }
  return std::nullopt;
}

Value Loop::call(Interpreter& interpreter, CallArguments& arguments) {
  if (recursive_ == nullptr)
    type_error("The loop must have the 'recursive' marker to be called recursively.");
  const Bound bound("loop", arguments, {"iterable"}, 1);
  const Interpreter::Depth depth(interpreter);
  TextBuilder out(interpreter.budget());
  interpreter.repeat(*recursive_, scope_, out, bound[0], depth_ + 1);
  return out.finish();
}

Value Loop::cycle(CallArguments& arguments) const {
  if (!arguments.named.empty()) type_error("cycle() takes no keyword arguments");
  if (arguments.positional.empty()) type_error("no items for cycling given");
  return arguments.positional[static_cast<size_t>(index_) % arguments.positional.size()];
}

Value Loop::changed(Interpreter& interpreter, CallArguments& arguments) {
  if (!arguments.named.empty()) type_error("changed() takes no keyword arguments");
  if (!pinned_) interpreter.pin(shared_from_this());  // it may be asked about itself
  pinned_ = true;
  const auto& values = arguments.positional;
  if (last_changed_ &&
      std::equal(values.begin(), values.end(), last_changed_->begin(), last_changed_->end(), equal))
    return Value(false);
  last_changed_ = values;
  return Value(true);
}

void Loop::release(std::vector<Value>& values) {
  if (last_changed_) std::move(last_changed_->begin(), last_changed_->end(), std::back_inserter(values));
  last_changed_.reset();
}

}  // namespace qkv::jinja
