// Whether a page is well formed and keeps to itself.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qkv::test {

// "" if every element is closed in order, every attribute is quoted and no stray '<' or '>' stands in text;
// otherwise what is wrong. <script> and <style> hold raw text.
inline std::string markup_fault(std::string_view html) {
  std::vector<std::string> open;
  size_t i = 0;
  const auto around = [&] { return " near '" + std::string(html.substr(i > 20 ? i - 20 : 0, 60)) + "'"; };
  while (i < html.size()) {
    if (html[i] == '>') return "stray >" + around();
    if (html[i] != '<') {
      ++i;
      continue;
    }
    if (html.substr(i, 9) == "<!DOCTYPE") {
      i = html.find('>', i) + 1;
      continue;
    }
    const bool closing = html[i + 1] == '/';
    size_t j = i + (closing ? 2 : 1);
    std::string name;
    while (j < html.size() && (isalnum(static_cast<unsigned char>(html[j])) != 0)) name += html[j++];
    if (name.empty()) return "stray <" + around();
    while (j < html.size() && html[j] != '>') {
      if (html[j] == '<') return "< inside a tag" + around();
      if (html[j] == '=' && html[j + 1] != '"') return "attribute without quotes" + around();
      if (html[j] == '"') j = html.find('"', j + 1);
      if (j == std::string_view::npos) return "attribute without end" + around();
      ++j;
    }
    if (j >= html.size()) return "tag without end" + around();
    if (closing) {
      if (open.empty() || open.back() != name)
        return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back()) + around();
      open.pop_back();
    } else if (html[j - 1] != '/' && name != "meta") {
      open.push_back(name);
    }
    i = j + 1;
    if (!closing && (name == "script" || name == "style")) {
      i = html.find("</" + name, i);
      if (i == std::string_view::npos) return "<" + name + "> without end";
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is never closed";
}

inline size_t occurrences(std::string_view text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

}  // namespace qkv::test
