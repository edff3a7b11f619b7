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

}  // namespace

Json parse_python_json(std::string_view text, std::string_view where) {
  std::string standard;
  if (!replace_words(text, standard)) return parse_json(text, where);
  Json json = parse_json(standard, where);
  restore_words(json);
  return json;
}

}  // namespace qkv
