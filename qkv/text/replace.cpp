#include "qkv/text/replace.h"

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

}  // namespace qkv
