// Filters that take a sequence as a whole: its ends, order, sums and groups.
#include <algorithm>

#include "qkv/text/jinja/attributes.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/operators.h"
#include "qkv/text/jinja/string_operations.h"

namespace qkv::jinja {
namespace {

struct Keyed {
  std::vector<Value> keys;
  Value item;
};

// Python's sorted(): stable, also in reverse. Keys compare as lists of keys do, or, with `single`, as what
// they are: lists look for the first items that differ, and never order two equal values that have no order.
void sort_keyed(std::vector<Keyed>& items, bool reverse, bool single, Budget& budget) {
  const auto before = [&](const Keyed& a, const Keyed& b) {
    budget.step();
    if (single) return less(a.keys[0], b.keys[0]);
    for (size_t i = 0; i < a.keys.size(); ++i) {
      if (!equal(a.keys[i], b.keys[i])) return less(a.keys[i], b.keys[i]);
    }
    return false;
  };
  if (reverse) {
    std::stable_sort(items.begin(), items.end(),
                     [&](const Keyed& a, const Keyed& b) { return before(b, a); });
  } else {
    std::stable_sort(items.begin(), items.end(), before);
  }
}

std::vector<Value> items_of(const std::vector<Keyed>& keyed) {
  std::vector<Value> items;
  for (const Keyed& entry : keyed) items.push_back(entry.item);
  return items;
}

AttributePath path_of(Heap& heap, const Value* attribute, const Value* fallback = nullptr) {
  return attribute == nullptr ? AttributePath() : AttributePath(heap, *attribute, fallback);
}

std::vector<Keyed> keyed_by(Interpreter& interpreter, const Value& value,
                            const std::vector<AttributePath>& paths, bool case_sensitive) {
  std::vector<Keyed> result;
  for (Value& item : to_vector(interpreter.heap(), value)) {
    interpreter.budget().step();
    Keyed keyed;
    for (const AttributePath& path : paths) {
      Value key = path.find(interpreter, item);
      keyed.keys.push_back(case_sensitive ? key : ignore_case(interpreter.heap(), key));
    }
    keyed.item = std::move(item);
    result.push_back(std::move(keyed));
  }
  return result;
}

Value first(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("first", arguments, {});
  Value item;
  if (iterate(interpreter.heap(), value)->next(item)) return item;
  return Value::undefined("No first item, sequence was empty.");
}

Value last(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("last", arguments, {});
  const auto iterator = iterate_backwards(interpreter.heap(), value);
  if (iterator == nullptr) type_error("'{}' object is not reversible", type_name(value));
  Value item;
  if (iterator->next(item)) return item;
  return Value::undefined("No last item, sequence was empty.");
}

Value length_of(Interpreter&, const Value& value, CallArguments& arguments) {
  const Bound bound("length", arguments, {});
  return length(value);
}

Value list(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("list", arguments, {});
  return interpreter.heap().list(to_vector(interpreter.heap(), value));
}

Value join_items(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  Heap& heap = interpreter.heap();
  const Text nothing;
  const TextPtr separator =
      bound.get(0) != nullptr ? to_text(heap, bound[0]) : std::make_shared<const Text>();
  if (bound.some(1) == nullptr) return join(heap, *separator, value, true);
  const AttributePath path(heap, bound[1]);
  std::vector<Value> parts;
  for (const Value& item : to_vector(heap, value)) parts.push_back(path.find(interpreter, item));
  return join(heap, *separator, heap.list(std::move(parts)), true);
}

Value reverse(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("reverse", arguments, {});
  Heap& heap = interpreter.heap();
  if (value.is_string()) return slice(heap, value, Value(), Value(), Value(int64_t{-1}));
  if (auto iterator = iterate_backwards(heap, value)) return iterator_value(heap, std::move(iterator));
  if (!is_iterable(value)) type_error("argument must be iterable");
  std::vector<Value> items = to_vector(heap, value);
  std::reverse(items.begin(), items.end());
  return heap.list(std::move(items));
}

Value sort(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  Heap& heap = interpreter.heap();
  std::vector<AttributePath> paths;
  const Value* attribute = bound.some(2);
  if (attribute != nullptr && attribute->is_string()) {
    const Text comma(",");
    for (const Value& part : split(heap, attribute->text(), &comma, -1)) paths.emplace_back(heap, part);
  } else {
    paths.push_back(path_of(heap, attribute));
  }
  auto items = keyed_by(interpreter, value, paths, bound.flag(1, false));
  sort_keyed(items, bound.flag(0, false), false, interpreter.budget());
  return heap.list(items_of(items));
}

Value dictsort(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.get(1) != nullptr ? expect_text(bound[1], "dictsort").bytes : "key";
  if (by != "key" && by != "value") value_error("You can only sort by either \"key\" or \"value\"");
  if (value.is(Kind::undefined)) value.fail_undefined();
  if (!value.is(Kind::dict)) type_error("'{}' object has no attribute 'items'", type_name(value));
  Heap& heap = interpreter.heap();
  std::vector<Keyed> items;
  for (const auto& [key, item] : value.dict().entries()) {
    const Value& sorted_by = by == "key" ? key : item;
    items.push_back(
        {{bound.flag(0, false) ? sorted_by : ignore_case(heap, sorted_by)}, heap.tuple({key, item})});
  }
  sort_keyed(items, bound.flag(2, false), true, interpreter.budget());
  return heap.list(items_of(items));
}

Value extreme(Interpreter& interpreter, const Value& value, CallArguments& arguments, bool greatest) {
  const Bound bound(greatest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const auto items =
      keyed_by(interpreter, value, {path_of(interpreter.heap(), bound.some(1))}, bound.flag(0, false));
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const Keyed* best = &items[0];
  for (const Keyed& item : items) {
    if (&item == &items[0]) continue;
    if (ordered(item.keys[0], best->keys[0], greatest ? Order::greater : Order::less)) best = &item;
  }
  return best->item;
}

Value min(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  return extreme(interpreter, value, arguments, false);
}

Value max(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  return extreme(interpreter, value, arguments, true);
}

Value sum(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  Heap& heap = interpreter.heap();
  Value total = bound.get(1) != nullptr ? bound[1] : Value(int64_t{0});
  if (total.is_string()) type_error("sum() can't sum strings [use ''.join(seq) instead]");
  const AttributePath path = path_of(heap, bound.some(0));
  const auto iterator = iterate(heap, value);
  for (Value item; iterator->next(item);) {
    interpreter.budget().step();
    total = binary(heap, BinaryOperator::add, total, path.find(interpreter, item));
  }
  return total;
}

Value groupby(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  Heap& heap = interpreter.heap();
  const AttributePath path = path_of(heap, bound.some(0), bound.some(1));
  const bool case_sensitive = bound.flag(2, false);
  auto items = keyed_by(interpreter, value, {path}, case_sensitive);
  sort_keyed(items, false, true, interpreter.budget());
  std::vector<Value> groups;
  for (size_t begin = 0; begin < items.size();) {
    std::vector<Value> members;
    size_t end = begin;
    for (; end < items.size() && equal(items[end].keys[0], items[begin].keys[0]); ++end)
      members.push_back(items[end].item);
    if (end == begin) members.push_back(items[end++].item);  // not a number: equal to nothing
    // The key as the first member writes it.
    Value key = case_sensitive ? items[begin].keys[0] : path.find(interpreter, members[0]);
    groups.push_back(heap.group(std::move(key), heap.list(std::move(members))));
    begin = end;
  }
  return heap.list(std::move(groups));
}

Value random(Interpreter&, const Value&, CallArguments&) {
  fail_as(FailureKind::unsupported,
          "the filter 'random' is refused: a template must give the same text every time");
}

constexpr Named<Filter> kFilters[] = {
    {"first", first},     {"last", last},       {"length", length_of}, {"count", length_of},   {"list", list},
    {"join", join_items}, {"reverse", reverse}, {"sort", sort},        {"dictsort", dictsort}, {"min", min},
    {"max", max},         {"sum", sum},         {"groupby", groupby},  {"random", random}};

}  // namespace

// ---- attributes.h ----

AttributePath::AttributePath(Heap& heap, const Value& attribute, const Value* fallback) {
  if (fallback != nullptr) fallback_ = *fallback;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  const Text dot(".");
  for (const Value& part : split(heap, attribute.text(), &dot, -1)) {
    const std::string& name = part.text().bytes;
    const bool number = !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
    parts_.push_back(number ? Value(*parse_integer(name, 10)) : part);
  }
}

Value AttributePath::find(Interpreter& interpreter, const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) {
    value = interpreter.item(value, part);
    if (value.is(Kind::undefined) && !fallback_.is(Kind::missing)) value = fallback_;
  }
  return value;
}

Value ignore_case(Heap& heap, const Value& value) {
  return value.is_string() ? to_lower(heap, value.text()) : value;
}

std::span<const Named<Filter>> sequence_filters() {
  return kFilters;
}

}  // namespace qkv::jinja
