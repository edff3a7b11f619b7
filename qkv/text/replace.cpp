#include "qkv/text/replace.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

#include "qkv/core/utf8.h"

namespace qkv {

std::string replace_all(std::string_view text, std::string_view wanted, std::string_view content) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, done)) {
    out += text.substr(done, at - done);
    out += content;
    done = at + wanted.size();
  }
  out += text.substr(done);
  return out;
}

std::string replace_matches(std::string_view text, const Regex& regex, std::string_view content,
                            Regex::Scratch& scratch) {
  std::string out;
  size_t done = 0, from = 0;
  while (from <= text.size()) {
    const auto match = regex.find(text, from, scratch);
    if (!match) break;
    out += text.substr(done, match->begin - done);
    out += content;
    done = from = match->end;
    if (match->begin == match->end) {
      if (from == text.size()) break;
      next_code_point(text, from);
    }
  }
  out += text.substr(done);
  return out;
}

ReplaceRule::ReplaceRule(const JsonView& view, const std::string& where) {
  const Json* pattern = view.find("pattern");
  const Json* text =
      pattern && pattern->is_object() && pattern->size() == 1 ? &pattern->begin().value() : nullptr;
  const std::string form = text ? pattern->begin().key() : "";
  require(text && text->is_string() && (form == "Regex" || form == "String"),
          "{}: Replace: expected a pattern {{\"Regex\": ...}} or {{\"String\": ...}}", where);
  wanted_ = text->get<std::string>();
  content_ = view.string("content");
  require(!wanted_.empty(), "{}: Replace: expected a pattern, found an empty string", where);
  if (form == "Regex") regex_ = std::make_shared<const Regex>(wanted_, where);
}

std::string ReplaceRule::apply(std::string_view text, Regex::Scratch& scratch) const {
  return regex_ ? replace_matches(text, *regex_, content_, scratch) : replace_all(text, wanted_, content_);
}

}  // namespace qkv
