// Typed key/value pairs: what GGUF headers, `.qkv` headers and Hugging Face configs all become, so that
// tokenizers and models are built from it without knowing a file format. Values keep the exact type that the
// file gave them (readers of GGUF refuse a u64 where they want a u32), in the file's order; the getters
// convert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace qkv {

// Every type a value of GGUF or `.qkv` can have; lists of lists are refused by the readers.
using MetadataValue =
    std::variant<bool, uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t, float,
                 double, std::string, std::vector<bool>, std::vector<uint8_t>, std::vector<int8_t>,
                 std::vector<uint16_t>, std::vector<int16_t>, std::vector<uint32_t>, std::vector<int32_t>,
                 std::vector<uint64_t>, std::vector<int64_t>, std::vector<float>, std::vector<double>,
                 std::vector<std::string>>;

class Metadata {
 public:
  using Items = std::vector<std::pair<std::string, MetadataValue>>;

  // `where` names the source in errors.
  explicit Metadata(std::string where = "metadata") : where_(std::move(where)) {}

  // Appends the key; one that is there keeps its place.
  void set(std::string key, MetadataValue value);
  // Nothing happens if there is no such key.
  void erase(std::string_view key);
  bool has(std::string_view key) const { return index_.find(key) != index_.end(); }
  const MetadataValue* find(std::string_view key) const;
  // The value without a copy; null unless the key is there and of exactly this type.
  template <typename T>
  const T* find_exactly(std::string_view key) const {
    return std::get_if<T>(find(key));
  }

  // Each throws Error `<where>: key '<key>': expected ..., found ...`; integers of every width and signedness
  // convert when the value fits, and integers read as floating point.
  std::string string(std::string_view key) const;
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;

  std::string string_or(std::string_view key, std::string fallback) const {
    return has(key) ? string(key) : std::move(fallback);
  }
  int64_t integer_or(std::string_view key, int64_t fallback) const {
    return has(key) ? integer(key) : fallback;
  }
  double number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }
  bool boolean_or(std::string_view key, bool fallback) const { return has(key) ? boolean(key) : fallback; }

  // In the order in which keys were first set.
  const Items& values() const { return items_; }
  const std::string& where() const { return where_; }

 private:
  [[noreturn]] void wrong(std::string_view key, std::string_view expected) const;
  std::string where_;
  Items items_;
  std::map<std::string, size_t, std::less<>> index_;
};

// "an integer", "a list of strings": how error sentences call the type.
std::string_view type_name(const MetadataValue& value);
// "u32", "f32", "string", "list of string".
std::string exact_type_name(const MetadataValue& value);
// The number of elements of a list; 1 for anything else.
size_t element_count(const MetadataValue& value);

}  // namespace qkv
