// Methods of lists, tuples and dictionaries that only read, and finding a method by name.
#include <algorithm>

#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

// A method with the value it belongs to.
class BoundMethod final : public Special {
 public:
  BoundMethod(Value self, const Named<Method>& method) : self_(std::move(self)), method_(method) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  std::string representation() const override {
    return fmt::format("<built-in method {} of {} object>", method_.name, jinja::type_name(self_));
  }
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, CallArguments& arguments) override {
    return method_.function(interpreter, self_, arguments);
  }

 private:
  Value self_;
  const Named<Method>& method_;
};

// ---- lists and tuples ----

Value count(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("count", arguments, {""}, 1);
  const auto& items = self.items();
  return static_cast<int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& item) { return equal(item, bound[0]); }));
}

Value index(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("index", arguments, {"", "", ""}, 1);
  const auto size = static_cast<int64_t>(self.items().size());
  const auto clamp = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
  const int64_t end = clamp(bound.integer(2, size));
  for (int64_t i = clamp(bound.integer(1, 0)); i < end; ++i) {
    if (equal(self.items()[static_cast<size_t>(i)], bound[0])) return i;
  }
  value_error("{} is not in list", representation(bound[0]));
}

Value copy(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;  // nothing can change either
}

// ---- dictionaries ----

Value get(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("get", arguments, {"", ""}, 1);
  if (const Value* found = self.dict().find(bound[0])) return *found;
  return bound.get(1) != nullptr ? bound[1] : Value::none();
}

template <View::Part part>
Value view(Interpreter& interpreter, const Value& self, CallArguments& arguments) {
  const Bound bound("view", arguments, {});
  return interpreter.heap().view(std::static_pointer_cast<const Dict>(self.shared()), part);
}

Value fromkeys(Interpreter& interpreter, const Value&, CallArguments& arguments) {
  const Bound bound("fromkeys", arguments, {"", ""}, 1);
  auto dict = std::make_shared<Dict>();
  for (Value& key : to_vector(interpreter.heap(), bound[0])) {
    interpreter.budget().step();
    dict->set(std::move(key), bound.get(1) != nullptr ? bound[1] : Value::none());
  }
  return interpreter.heap().dict(std::move(dict));
}

// ---- numbers ----

Value is_integer(Interpreter&, const Value& self, CallArguments& arguments) {
  const Bound bound("is_integer", arguments, {});
  const double real = self.real();
  return Value(real - real == 0 && real == static_cast<double>(static_cast<long double>(real)) &&
               round_number(self, 0).real() == real);
}

Value mutating(Interpreter&, const Value&, CallArguments&) {
  fail_as(FailureKind::attribute, "lists and dictionaries cannot be changed by a template");
}

constexpr Named<Method> kList[] = {{"count", count},      {"index", index},    {"copy", copy},
                                   {"append", mutating},  {"clear", mutating}, {"extend", mutating},
                                   {"insert", mutating},  {"pop", mutating},   {"remove", mutating},
                                   {"reverse", mutating}, {"sort", mutating}};
constexpr Named<Method> kTuple[] = {{"count", count}, {"index", index}};
constexpr Named<Method> kDict[] = {{"get", get},
                                   {"keys", view<View::Part::keys>},
                                   {"values", view<View::Part::values>},
                                   {"items", view<View::Part::items>},
                                   {"copy", copy},
                                   {"fromkeys", fromkeys},
                                   {"clear", mutating},
                                   {"pop", mutating},
                                   {"popitem", mutating},
                                   {"setdefault", mutating},
                                   {"update", mutating}};
constexpr Named<Method> kReal[] = {{"is_integer", is_integer}};

const Named<Method>* find_in(std::span<const Named<Method>> table, std::string_view name) {
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const auto& entry) { return entry.name == name; });
  return it == table.end() ? nullptr : &*it;
}

}  // namespace

std::span<const Named<Method>> container_methods(Kind kind) {
  switch (kind) {
    case Kind::list:
      return kList;
    case Kind::tuple:
      return kTuple;
    case Kind::dict:
      return kDict;
    case Kind::real:
      return kReal;
    default:
      return {};
  }
}

bool is_mutating_method(Kind kind, std::string_view name) {
  const auto* method = find_in(container_methods(kind), name);
  return method != nullptr && method->function == mutating;
}

std::optional<Value> find_method(Heap& heap, const Value& self, std::string_view name) {
  const Named<Method>* method = nullptr;
  if (self.is_string()) {
    method = find_in(string_methods(), name);
    if (method == nullptr) method = find_in(string_tests(), name);
  } else {
    method = find_in(container_methods(self.kind()), name);
  }
  if (method == nullptr) return std::nullopt;
  heap.budget().allocate(sizeof(BoundMethod));
  auto bound = std::make_shared<BoundMethod>(self, *method);
  heap.nest(*bound, self);
  return Value(Kind::special, std::move(bound));
}

}  // namespace qkv::jinja
