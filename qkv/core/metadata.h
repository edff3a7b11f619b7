// Typed key/value pairs: what GGUF headers, `.qkv` headers and Hugging Face configs all become, so that tokenizers and
// models are built from it without knowing a file format.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qkv {

using MetadataValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                                   std::vector<uint64_t>, std::vector<double>, std::vector<std::string>>;

class Metadata {
 public:
  // `where` names the source in errors.
  explicit Metadata(std::string where = "metadata") : where_(std::move(where)) {}

  void set(std::string key, MetadataValue value) { values_[std::move(key)] = std::move(value); }
  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  const MetadataValue* find(std::string_view key) const;

  // Each throws Error `<where>: key '<key>': expected ..., found ...`; integers convert between signednesses when the
  // value fits, and integers read as floating point.
  std::string string(std::string_view key) const;
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;

  std::string string_or(std::string_view key, std::string fallback) const { return has(key) ? string(key) : std::move(fallback); }
  int64_t integer_or(std::string_view key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }
  double number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }
  bool boolean_or(std::string_view key, bool fallback) const { return has(key) ? boolean(key) : fallback; }

  const std::map<std::string, MetadataValue, std::less<>>& values() const { return values_; }
  const std::string& where() const { return where_; }

 private:
  [[noreturn]] void wrong(std::string_view key, std::string_view expected) const;
  std::string where_;
  std::map<std::string, MetadataValue, std::less<>> values_;
};

// "an integer", "a list of strings": how error sentences call the type.
std::string_view type_name(const MetadataValue& value);

}  // namespace qkv
