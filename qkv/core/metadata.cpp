#include "qkv/core/metadata.h"

#include <limits>

#include "qkv/core/error.h"

namespace qkv {

std::string_view type_name(const MetadataValue& value) {
  constexpr std::string_view names[] = {"true or false", "an integer", "an unsigned integer", "a number", "a string",
                                        "a list of booleans", "a list of integers", "a list of unsigned integers",
                                        "a list of numbers", "a list of strings"};
  return names[value.index()];
}

const MetadataValue* Metadata::find(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

void Metadata::wrong(std::string_view key, std::string_view expected) const {
  const MetadataValue* value = find(key);
  fail("{}: key '{}': expected {}, found {}", where_, key, expected, value == nullptr ? "nothing" : type_name(*value));
}

std::string Metadata::string(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value != nullptr) {
    if (const auto* text = std::get_if<std::string>(value)) return *text;
  }
  wrong(key, "a string");
}

int64_t Metadata::integer(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value != nullptr) {
    if (const auto* number = std::get_if<int64_t>(value)) return *number;
    if (const auto* number = std::get_if<uint64_t>(value)) {
      if (*number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return static_cast<int64_t>(*number);
    }
  }
  wrong(key, "an integer");
}

double Metadata::number(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value != nullptr) {
    if (const auto* number = std::get_if<double>(value)) return *number;
    if (const auto* number = std::get_if<int64_t>(value)) return static_cast<double>(*number);
    if (const auto* number = std::get_if<uint64_t>(value)) return static_cast<double>(*number);
  }
  wrong(key, "a number");
}

bool Metadata::boolean(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value != nullptr) {
    if (const auto* flag = std::get_if<bool>(value)) return *flag;
  }
  wrong(key, "true or false");
}

std::vector<std::string> Metadata::strings(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value != nullptr) {
    if (const auto* list = std::get_if<std::vector<std::string>>(value)) return *list;
  }
  wrong(key, "a list of strings");
}

std::vector<int64_t> Metadata::integers(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value != nullptr) {
    if (const auto* list = std::get_if<std::vector<int64_t>>(value)) return *list;
    if (const auto* list = std::get_if<std::vector<uint64_t>>(value)) return {list->begin(), list->end()};
  }
  wrong(key, "a list of integers");
}

std::vector<double> Metadata::numbers(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value != nullptr) {
    if (const auto* list = std::get_if<std::vector<double>>(value)) return *list;
    if (const auto* list = std::get_if<std::vector<int64_t>>(value)) return {list->begin(), list->end()};
    if (const auto* list = std::get_if<std::vector<uint64_t>>(value)) return {list->begin(), list->end()};
  }
  wrong(key, "a list of numbers");
}

}  // namespace qkv
