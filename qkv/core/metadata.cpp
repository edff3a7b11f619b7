#include "qkv/core/metadata.h"

#include <limits>
#include <optional>
#include <type_traits>

#include "qkv/core/error.h"

namespace qkv {
namespace {

template <typename T>
struct ListOf {
  static constexpr bool is_list = false;
  using Element = T;
};
template <typename T>
struct ListOf<std::vector<T>> {
  static constexpr bool is_list = true;
  using Element = T;
};

template <typename T>
constexpr bool is_integer = std::is_integral_v<T> && !std::is_same_v<T, bool>;
template <typename T>
constexpr bool is_number = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

// The name of an element's exact type, and what one and many of them are called in a sentence.
template <typename T>
constexpr std::string_view exact_name() {
  if constexpr (std::is_same_v<T, bool>) return "bool";
  if constexpr (std::is_same_v<T, std::string>) return "string";
  if constexpr (std::is_same_v<T, float>) return "f32";
  if constexpr (std::is_same_v<T, double>) return "f64";
  if constexpr (is_integer<T>) {
    constexpr std::string_view names[2][4] = {{"i8", "i16", "i32", "i64"}, {"u8", "u16", "u32", "u64"}};
    constexpr size_t width = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return names[std::is_unsigned_v<T> ? 1 : 0][width];
  }
}

template <typename T>
constexpr std::string_view sentence_name(bool is_list) {
  if constexpr (std::is_same_v<T, bool>) return is_list ? "a list of booleans" : "true or false";
  if constexpr (std::is_same_v<T, std::string>) return is_list ? "a list of strings" : "a string";
  if constexpr (std::is_floating_point_v<T>) return is_list ? "a list of numbers" : "a number";
  if constexpr (is_integer<T>) {
    if constexpr (std::is_unsigned_v<T>)
      return is_list ? "a list of unsigned integers" : "an unsigned integer";
    return is_list ? "a list of integers" : "an integer";
  }
}

// The value as int64_t, where it fits.
template <typename T>
std::optional<int64_t> as_integer(T value) {
  if constexpr (std::is_same_v<T, uint64_t>) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  }
  return static_cast<int64_t>(value);
}

}  // namespace

std::string_view type_name(const MetadataValue& value) {
  return std::visit(
      [](const auto& held) {
        using List = ListOf<std::decay_t<decltype(held)>>;
        return sentence_name<typename List::Element>(List::is_list);
      },
      value);
}

std::string exact_type_name(const MetadataValue& value) {
  return std::visit(
      [](const auto& held) {
        using List = ListOf<std::decay_t<decltype(held)>>;
        return (List::is_list ? "list of " : "") + std::string(exact_name<typename List::Element>());
      },
      value);
}

size_t element_count(const MetadataValue& value) {
  return std::visit(
      [](const auto& held) -> size_t {
        if constexpr (ListOf<std::decay_t<decltype(held)>>::is_list) return held.size();
        return 1;
      },
      value);
}

void Metadata::set(std::string key, MetadataValue value) {
  const auto [place, is_new] = index_.emplace(key, items_.size());
  if (is_new) {
    items_.emplace_back(std::move(key), std::move(value));
  } else {
    items_[place->second].second = std::move(value);
  }
}

void Metadata::erase(std::string_view key) {
  const auto place = index_.find(key);
  if (place == index_.end()) return;
  const size_t erased = place->second;
  index_.erase(place);
  items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(erased));
  for (auto& [other, position] : index_) position -= position > erased ? 1 : 0;
}

const MetadataValue* Metadata::find(std::string_view key) const {
  const auto place = index_.find(key);
  return place == index_.end() ? nullptr : &items_[place->second].second;
}

void Metadata::wrong(std::string_view key, std::string_view expected) const {
  const MetadataValue* value = find(key);
  fail("{}: key '{}': expected {}, found {}", where_, key, expected,
       value == nullptr ? "nothing" : type_name(*value));
}

std::string Metadata::string(std::string_view key) const {
  if (const auto* text = find_exactly<std::string>(key)) return *text;
  wrong(key, "a string");
}

bool Metadata::boolean(std::string_view key) const {
  if (const auto* flag = find_exactly<bool>(key)) return *flag;
  wrong(key, "true or false");
}

std::vector<std::string> Metadata::strings(std::string_view key) const {
  if (const auto* list = find_exactly<std::vector<std::string>>(key)) return *list;
  wrong(key, "a list of strings");
}

int64_t Metadata::integer(std::string_view key) const {
  std::optional<int64_t> result;
  if (const MetadataValue* value = find(key)) {
    std::visit(
        [&](const auto& held) {
          if constexpr (is_integer<std::decay_t<decltype(held)>>) result = as_integer(held);
        },
        *value);
  }
  if (!result) wrong(key, "an integer");
  return *result;
}

double Metadata::number(std::string_view key) const {
  std::optional<double> result;
  if (const MetadataValue* value = find(key)) {
    std::visit(
        [&](const auto& held) {
          if constexpr (is_number<std::decay_t<decltype(held)>>) result = static_cast<double>(held);
        },
        *value);
  }
  if (!result) wrong(key, "a number");
  return *result;
}

std::vector<int64_t> Metadata::integers(std::string_view key) const {
  std::vector<int64_t> result;
  bool fits = false;
  if (const MetadataValue* value = find(key)) {
    std::visit(
        [&](const auto& held) {
          using List = ListOf<std::decay_t<decltype(held)>>;
          if constexpr (List::is_list && is_integer<typename List::Element>) {
            fits = true;
            result.reserve(held.size());
            for (const auto element : held) {
              const auto number = as_integer(element);
              fits = fits && number.has_value();
              result.push_back(number.value_or(0));
            }
          }
        },
        *value);
  }
  if (!fits) wrong(key, "a list of integers");
  return result;
}

std::vector<double> Metadata::numbers(std::string_view key) const {
  std::optional<std::vector<double>> result;
  if (const MetadataValue* value = find(key)) {
    std::visit(
        [&](const auto& held) {
          using List = ListOf<std::decay_t<decltype(held)>>;
          if constexpr (List::is_list && is_number<typename List::Element>) {
            result.emplace(held.begin(), held.end());
          }
        },
        *value);
  }
  if (!result) wrong(key, "a list of numbers");
  return std::move(*result);
}

}  // namespace qkv
