// Truth, equality, hashes, order and membership, as Python defines them.
#include <cmath>
#include <limits>

#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is(Kind::real) && b.is(Kind::real)) return a.real() == b.real();
  const double real = a.is(Kind::real) ? a.real() : b.real();
  const int64_t integer = a.is(Kind::real) ? b.integer() : a.integer();
  // Exact, also where a double cannot hold the integer.
  return real >= -0x1p63 && real < 0x1p63 && std::floor(real) == real &&
         static_cast<int64_t>(real) == integer;
}

bool equal_items(const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(a[i], b[i])) return false;
  }
  return true;
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.find(key);
    if (other == nullptr || !equal(value, *other)) return false;
  }
  return true;
}

bool equal_ranges(const Range& a, const Range& b) {
  const int64_t size = a.size();
  if (size != b.size()) return false;
  return size == 0 || (a.start == b.start && (size == 1 || a.step == b.step));
}

std::string_view symbol(Order order) {
  switch (order) {
    case Order::less:
      return "<";
    case Order::less_equal:
      return "<=";
    case Order::greater:
      return ">";
    case Order::greater_equal:
      return ">=";
  }
  return "";
}

template <typename T>
bool holds(const T& a, const T& b, Order order) {
  switch (order) {
    case Order::less:
      return a < b;
    case Order::less_equal:
      return a <= b;
    case Order::greater:
      return a > b;
    case Order::greater_equal:
      return a >= b;
  }
  return false;
}

bool ordered_numbers(const Value& a, const Value& b, Order order) {
  if (a.is_integral() && b.is_integral()) return holds(a.integer(), b.integer(), order);
  // A long double holds every int64 on the platforms we build for, or is no worse than a double.
  const auto wide = [](const Value& v) {
    return v.is(Kind::real) ? static_cast<long double>(v.real()) : static_cast<long double>(v.integer());
  };
  return holds(wide(a), wide(b), order);
}

bool in_view(const View& view, const Value& item) {
  switch (view.part) {
    case View::Part::keys:
      return view.dict->find(item) != nullptr;
    case View::Part::values:
      for (const auto& [key, value] : view.dict->entries()) {
        if (equal(value, item)) return true;
      }
      return false;
    case View::Part::items: {
      if (!item.is(Kind::tuple) || item.items().size() != 2) return false;
      const Value* value = view.dict->find(item.items()[0]);
      return value != nullptr && equal(*value, item.items()[1]);
    }
  }
  return false;
}

bool in_range(const Range& range, const Value& item) {
  int64_t integer = 0;
  if (item.is_integral()) {
    integer = item.integer();
  } else if (item.is(Kind::real) && std::floor(item.real()) == item.real() &&
             std::abs(item.real()) < 0x1p62) {
    integer = static_cast<int64_t>(item.real());
  } else {
    return false;
  }
  const int64_t size = range.size();
  if (size == 0) return false;
  const int64_t low = range.step > 0 ? range.start : range.at(size - 1);
  const int64_t high = range.step > 0 ? range.at(size - 1) : range.start;
  if (integer < low || integer > high) return false;
  return (static_cast<uint64_t>(integer) - static_cast<uint64_t>(low)) %
             (range.step > 0 ? static_cast<uint64_t>(range.step)
                             : uint64_t{0} - static_cast<uint64_t>(range.step)) ==
         0;
}

}  // namespace

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::missing:
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return value.integer() != 0;
    case Kind::real:
      return value.real() != 0;
    default:
      return try_length(value).value_or(1) != 0;
  }
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::missing:
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return a.text().bytes == b.text().bytes;
    case Kind::list:
    case Kind::tuple:
      return a.object() == b.object() || equal_items(a.items(), b.items());
    case Kind::dict:
      return a.object() == b.object() || equal_dicts(a.dict(), b.dict());
    case Kind::range:
      return equal_ranges(a.range(), b.range());
    default:
      return a.object() == b.object();
  }
}

uint64_t hash_bytes(std::string_view bytes) {
  return std::hash<std::string_view>()(bytes);
}

uint64_t hash_value(const Value& value) {
  const auto mix = [](uint64_t hash, uint64_t next) {
    return (hash ^ next) * 0x9E3779B97F4A7C15ull + 0x7F4A7C15ull;
  };
  switch (value.kind()) {
    case Kind::none:
      return 1;
    case Kind::boolean:
    case Kind::integer:
      return mix(2, static_cast<uint64_t>(value.integer()));
    case Kind::real: {  // equal to an integer: the same hash
      const double real = value.real();
      if (real >= -0x1p63 && real < 0x1p63 && std::floor(real) == real)
        return mix(2, static_cast<uint64_t>(static_cast<int64_t>(real)));
      return mix(3, std::hash<double>()(real));
    }
    case Kind::string:
      return hash_bytes(value.text().bytes);
    case Kind::tuple: {
      uint64_t hash = 4;
      for (const Value& item : value.items()) hash = mix(hash, hash_value(item));
      return hash;
    }
    case Kind::range:
      return mix(5, static_cast<uint64_t>(value.range().size()));
    case Kind::list:
    case Kind::dict:
      type_error("unhashable type: '{}'", type_name(value));
    case Kind::missing:
    case Kind::undefined:
      return 6;
    default:
      return mix(7, reinterpret_cast<uintptr_t>(value.object()));
  }
}

bool ordered(const Value& a, const Value& b, Order order) {
  if (a.is_number() && b.is_number()) return ordered_numbers(a, b, order);
  if (a.is_string() && b.is_string())
    return holds(a.text().bytes, b.text().bytes, order);  // UTF-8 keeps the order
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto& left = a.items();
    const auto& right = b.items();
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      if (!equal(left[i], right[i])) return ordered(left[i], right[i], order);
    }
    return holds(left.size(), right.size(), order);
  }
  if (a.is(Kind::undefined)) a.fail_undefined();
  if (b.is(Kind::undefined)) b.fail_undefined();
  type_error("'{}' not supported between instances of '{}' and '{}'", symbol(order), type_name(a),
             type_name(b));
}

bool less(const Value& a, const Value& b) {
  return ordered(a, b, Order::less);
}

bool contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::string:
      if (!item.is_string())
        type_error("'in <string>' requires string as left operand, not {}", type_name(item));
      return container.text().bytes.find(item.text().bytes) != std::string::npos;
    case Kind::list:
    case Kind::tuple:
      for (const Value& candidate : container.items()) {
        if (equal(candidate, item)) return true;
      }
      return false;
    case Kind::dict:
      return container.dict().find(item) != nullptr;
    case Kind::view:
      return in_view(container.view(), item);
    case Kind::range:
      return in_range(container.range(), item);
    case Kind::iterator: {
      Value next;
      while (container.iterator().next(next)) {
        if (equal(next, item)) return true;
      }
      return false;
    }
    case Kind::undefined:
      return false;
    default:
      type_error("argument of type '{}' is not iterable", type_name(container));
  }
}

}  // namespace qkv::jinja
