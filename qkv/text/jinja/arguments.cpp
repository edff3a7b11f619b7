// Arguments to parameters, and looking up filters and tests by name.
#include <algorithm>

#include "qkv/core/json.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

template <typename Function>
const Named<Function>* find_named(std::span<const Named<Function>> table, std::string_view name) {
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const auto& entry) { return entry.name == name; });
  return it == table.end() ? nullptr : &*it;
}

const Named<Filter>* find_filter(std::string_view name) {
  for (const auto table :
       {text_filters(), wrapping_filters(), sequence_filters(), lazy_filters(), value_filters()}) {
    if (const auto* found = find_named(table, name)) return found;
  }
  return nullptr;
}

}  // namespace

Bound::Bound(std::string_view function, CallArguments& arguments,
             std::initializer_list<std::string_view> parameters, size_t required)
    : function_(function), values_(parameters.size()) {
  if (arguments.positional.size() > parameters.size()) {
    type_error("{}() takes at most {} argument{} ({} given)", function, parameters.size(),
               parameters.size() == 1 ? "" : "s", arguments.positional.size());
  }
  std::copy(arguments.positional.begin(), arguments.positional.end(), values_.begin());
  for (auto& [name, value] : arguments.named) {
    const auto* it = std::find(parameters.begin(), parameters.end(), name);
    if (it == parameters.end() || name.empty())
      type_error("{}() got an unexpected keyword argument {}", function, quoted(name));
    Value& slot = values_[static_cast<size_t>(it - parameters.begin())];
    if (!slot.is(Kind::missing))
      type_error("{}() got multiple values for argument {}", function, quoted(name));
    slot = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!values_[i].is(Kind::missing)) continue;
    const std::string_view name = *(parameters.begin() + i);
    if (name.empty())
      type_error("{}() takes at least {} argument{}", function, required, required == 1 ? "" : "s");
    type_error("{}() missing a required argument: '{}'", function, name);
  }
}

const Value* Bound::some(size_t index) const {
  const Value* value = get(index);
  return value == nullptr || value->is(Kind::none) ? nullptr : value;
}

int64_t Bound::integer(size_t index, int64_t fallback) const {
  const Value* value = get(index);
  return value == nullptr ? fallback : expect_integer(*value, function_);
}

bool Bound::flag(size_t index, bool fallback) const {
  const Value* value = get(index);
  return value == nullptr ? fallback : truth(*value);
}

bool is_filter(std::string_view name) {
  return find_filter(name) != nullptr;
}
bool is_test(std::string_view name) {
  return find_named(tests(), name) != nullptr;
}

Value apply_filter(Interpreter& interpreter, std::string_view name, const Value& value,
                   CallArguments& arguments) {
  const auto* filter = find_filter(name);
  if (filter == nullptr) fail_as(FailureKind::undefined, "there is no filter '{}'", name);
  return filter->function(interpreter, value, arguments);
}

bool apply_test(Interpreter& interpreter, std::string_view name, const Value& value,
                CallArguments& arguments) {
  const auto* test = find_named(tests(), name);
  if (test == nullptr) fail_as(FailureKind::undefined, "there is no test '{}'", name);
  return test->function(interpreter, value, arguments);
}

}  // namespace qkv::jinja
