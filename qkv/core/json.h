// JSON and YAML with errors that name the file, the key, what was expected and what was found.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qkv {

using Json = nlohmann::ordered_json;

// Parses text; `where` (a path, usually) opens the error sentence. Refuses nesting deeper than 512.
Json parse_json(std::string_view text, std::string_view where);
Json load_json(const std::string& path);
// Pretty-printed (2 spaces) and newline-terminated, written atomically.
void save_json(const std::string& path, const Json& json);
// One line. Invalid UTF-8 inside strings is replaced, never thrown on.
std::string dump_json(const Json& json, int indent = -1);
// YAML (a config file) as JSON: scalars become booleans, integers, floats, null or strings by YAML 1.2's core rules.
Json load_yaml(const std::string& path);
void save_yaml(const std::string& path, const Json& json);

// One object of a parsed file. Each getter throws Error `<where>: key 'a.b': expected ..., found ...` on a wrong type,
// and the required forms on absence. null counts as absent.
class JsonView {
 public:
  JsonView(const Json& object, std::string where, std::string prefix = "");

  bool has(std::string_view key) const;
  JsonView object(std::string_view key) const;
  const Json* find(std::string_view key) const;  // null if absent
  std::string string(std::string_view key) const;
  std::string string_or(std::string_view key, std::string fallback) const;
  int64_t integer(std::string_view key) const;
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  double number(std::string_view key) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::vector<std::string> strings_or_empty(std::string_view key) const;
  // Throws unless every key of the object is among `known`; names the nearest known key.
  void refuse_unknown(const std::vector<std::string>& known) const;
  const std::string& where() const { return where_; }
  const Json& json() const { return *object_; }

 private:
  [[noreturn]] void wrong(std::string_view key, std::string_view expected) const;
  const Json& at(std::string_view key, std::string_view expected) const;
  const Json* object_;
  std::string where_;
  std::string prefix_;
};

// The candidate with the smallest edit distance to `word`, if it is close enough to be what was meant.
std::optional<std::string> nearest_word(std::string_view word, const std::vector<std::string>& candidates);
// "; did you mean 'x'?" or "".
std::string suggestion(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace qkv
