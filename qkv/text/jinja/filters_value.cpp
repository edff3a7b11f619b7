// Filters about single values: numbers, defaults, JSON.
#include <algorithm>
#include <cmath>

#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

Value absolute(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("abs", arguments, {});
  if (value.is(Kind::real)) return std::abs(value.real());
  if (value.is_integral()) return value.integer() < 0 ? negative(value) : Value(value.integer());
  if (value.is(Kind::undefined)) type_error("bad operand type for abs(): 'Undefined'");
  type_error("bad operand type for abs(): '{}'", type_name(value));
}

// Runs `convert`; nullopt where Python raises TypeError or ValueError.
template <typename Convert>
auto attempt(Convert&& convert) -> std::optional<decltype(convert())> {
  try {
    return convert();
  } catch (const Failure& failure) {
    if (failure.kind != FailureKind::type && failure.kind != FailureKind::value) throw;
    return std::nullopt;
  }
}

double to_real(const Value& value) {
  if (value.is_number()) return value.to_double();
  if (value.is(Kind::undefined)) value.fail_undefined();
  if (!value.is_string())
    type_error("float() argument must be a string or a real number, not '{}'", type_name(value));
  const auto parsed = parse_real(value.text().bytes);
  if (!parsed) value_error("could not convert string to float: {}", quoted(value.text().bytes));
  return *parsed;
}

Value integer(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  const auto direct = attempt([&] {
    if (!value.is_string()) return to_integer(value);
    const auto parsed = parse_integer(value.text().bytes, bound.integer(1, 10));
    if (!parsed) value_error("no integer");
    return *parsed;
  });
  if (direct) return *direct;
  const auto through_real = attempt([&] { return to_integer(Value(to_real(value))); });
  if (through_real) return *through_real;
  return bound.get(0) != nullptr ? bound[0] : Value(int64_t{0});
}

Value real(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  const auto converted = attempt([&] { return to_real(value); });
  if (converted) return *converted;
  return bound.get(0) != nullptr ? bound[0] : Value(0.0);
}

Value round_filter(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const std::string method = bound.get(1) != nullptr ? expect_text(bound[1], "round").bytes : "common";
  const int64_t precision = bound.integer(0, 0);
  if (method == "common") return round_number(value, precision);
  if (method != "ceil" && method != "floor") value_error("method must be common, ceil or floor");
  Heap& heap = interpreter.heap();
  const Value scale = binary(heap, BinaryOperator::power, Value(int64_t{10}), Value(precision));
  const Value scaled = binary(heap, BinaryOperator::multiply, value, scale);
  if (!scaled.is_number()) type_error("must be real number, not {}", type_name(scaled));
  const double rounded = method == "ceil" ? std::ceil(scaled.to_double()) : std::floor(scaled.to_double());
  const Value whole = scaled.is_integral() ? Value(scaled.integer()) : Value(to_integer(Value(rounded)));
  return binary(heap, BinaryOperator::divide, whole, scale);
}

Value fallback(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  if (!value.is(Kind::undefined) && (!bound.flag(1, false) || truth(value))) return value;
  return bound.get(0) != nullptr ? bound[0] : interpreter.heap().text("");
}

Value attribute(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  const std::string& name = expect_text(bound[0], "attr").bytes;
  if (const auto found = interpreter.own_attribute(value, name)) return *found;
  return Value::undefined(fmt::format("'{}' has no attribute {}", object_name(value), quoted(name)));
}

Value tojson(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  if (const Value* indent = bound.some(1)) {
    if (indent->is_string()) {
      style.indent = indent->text().bytes;
    } else {
      const int64_t width = std::max<int64_t>(0, expect_integer(*indent, "tojson: indent"));
      interpreter.budget().allocate(static_cast<uint64_t>(width));
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
    style.item_separator = ",";
  }
  if (const Value* separators = bound.some(2)) {
    const std::vector<Value> both = to_vector(interpreter.heap(), *separators);
    if (both.size() != 2) value_error("tojson: expected two separators, found {}", both.size());
    style.item_separator = expect_text(both[0], "tojson: separators").bytes;
    style.key_separator = expect_text(both[1], "tojson: separators").bytes;
  }
  TextBuilder out(interpreter.budget());
  append_json(out, value, style);
  return out.finish();
}

// The same value with the keys of its dictionaries in order, as Python's pprint shows it.
Value with_sorted_keys(Heap& heap, const Value& value) {
  if (value.is(Kind::dict)) {
    std::vector<Dict::Entry> entries = value.dict().entries();
    std::stable_sort(entries.begin(), entries.end(),
                     [](const auto& a, const auto& b) { return less(a.first, b.first); });
    auto dict = std::make_shared<Dict>();
    for (auto& [key, item] : entries) dict->set(key, with_sorted_keys(heap, item));
    return heap.dict(std::move(dict));
  }
  if (!value.is_sequence()) return value;
  std::vector<Value> items;
  for (const Value& item : value.items()) items.push_back(with_sorted_keys(heap, item));
  return value.is(Kind::list) ? heap.list(std::move(items)) : heap.tuple(std::move(items));
}

// Python's pprint breaks what is wider than a line; that much layout is not worth having here.
Value pprint(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("pprint", arguments, {});
  TextBuilder out(interpreter.budget());
  append_representation(out, with_sorted_keys(interpreter.heap(), value));
  if (out.size() > 80)
    fail_as(FailureKind::unsupported,
            "pprint: only values that fit on a line of 80 characters are supported");
  return out.finish();
}

Value filesizeformat(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("filesizeformat", arguments, {"binary"});
  const bool binary_units = bound.flag(0, false);
  const double bytes = to_real(value), base = binary_units ? 1024 : 1000;
  if (bytes == 1) return interpreter.heap().text("1 Byte");
  if (bytes < base) return interpreter.heap().text(fmt::format("{} Bytes", to_integer(Value(bytes))));
  constexpr std::string_view kLetters = "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  for (; i < kLetters.size(); ++i) {
    unit *= base;
    if (bytes < unit) break;
  }
  const char letter = kLetters[std::min(i, kLetters.size() - 1)];
  const std::string prefix =
      binary_units ? fmt::format("{}iB", letter == 'k' ? 'K' : letter) : fmt::format("{}B", letter);
  return interpreter.heap().text(fmt::format("{:.1f} {}", base * bytes / unit, prefix));
}

constexpr Named<Filter> kFilters[] = {{"abs", absolute},     {"int", integer},
                                      {"float", real},       {"round", round_filter},
                                      {"default", fallback}, {"d", fallback},
                                      {"attr", attribute},   {"tojson", tojson},
                                      {"pprint", pprint},    {"filesizeformat", filesizeformat}};

}  // namespace

std::span<const Named<Filter>> value_filters() {
  return kFilters;
}

}  // namespace qkv::jinja
