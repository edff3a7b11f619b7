#include "qkv/formats/python_json.h"

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace qkv {
namespace {

struct Word {
  std::string_view text;
  double value;
};

constexpr std::array<Word, 3> kWords = {{
    {"NaN", std::numeric_limits<double>::quiet_NaN()},
    {"Infinity", std::numeric_limits<double>::infinity()},
    {"-Infinity", -std::numeric_limits<double>::infinity()},
}};

// What stands for a word while the standard parser runs: a string that begins with NUL, which no config has.
std::string stand_in(const Word& word) {
  return std::string(1, '\0') + std::string(word.text);
}

// The text with each word outside of strings replaced by its stand-in; whether there was any.
bool replace_words(std::string_view text, std::string& result) {
  bool in_string = false;
  bool any = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\' && i + 1 < text.size()) {
      result += c;
      result += text[++i];
      continue;
    }
    if (c == '"') in_string = !in_string;
    bool replaced = false;
    for (const auto& word : kWords) {
      if (in_string || !text.substr(i).starts_with(word.text)) continue;
      result += "\"\\u0000" + std::string(word.text) + "\"";
      i += word.text.size() - 1;
      replaced = true;
      break;
    }
    if (!replaced) result += c;
    any |= replaced;
  }
  return any;
}

void restore_words(Json& json) {
  if (json.is_structured()) {
    for (auto& item : json) restore_words(item);
    return;
  }
  if (!json.is_string()) return;
  for (const auto& word : kWords) {
    if (json.get_ref<const std::string&>() == stand_in(word)) {
      json = word.value;
      return;
    }
  }
}

// The reverse of restore_words(); whether there was any.
bool put_stand_ins(Json& json) {
  bool any = false;
  if (json.is_structured()) {
    for (auto& item : json) any |= put_stand_ins(item);
    return any;
  }
  if (!json.is_number_float()) return false;
  const double value = json.get<double>();
  for (const auto& word : kWords) {
    if (std::isfinite(value) || !(value == word.value || (std::isnan(value) && std::isnan(word.value))))
      continue;
    json = stand_in(word);
    return true;
  }
  return false;
}

}  // namespace

Json parse_python_json(std::string_view text, std::string_view where) {
  std::string standard;
  if (!replace_words(text, standard)) return parse_json(text, where);
  Json json = parse_json(standard, where);
  restore_words(json);
  return json;
}

std::string dump_python_json(const Json& json, int indent) {
  Json standard = json;
  if (!put_stand_ins(standard)) return dump_json(json, indent);
  std::string text = dump_json(standard, indent);
  for (const auto& word : kWords) {
    const std::string quoted = "\"\\u0000" + std::string(word.text) + "\"";
    for (size_t at = 0; (at = text.find(quoted, at)) != std::string::npos; at += word.text.size()) {
      text.replace(at, quoted.size(), word.text);
    }
  }
  return text;
}

}  // namespace qkv
