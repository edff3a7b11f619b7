// Expansion of sentence templates.
#include "qkv/data/tales/render.h"

#include "qkv/core/error.h"

namespace qkv::tales {
namespace {

bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}
char lower(char c) {
  return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c;
}
char upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

std::string_view article(std::string_view noun) {
  // By sound: these begin with a consonant in speech, or do not although a consonant is written.
  for (const auto prefix : {"uni", "use", "one"}) {
    if (noun.starts_with(prefix)) return "a";
  }
  for (const auto prefix : {"hour", "honest"}) {
    if (noun.starts_with(prefix)) return "an";
  }
  const char first = noun.empty() ? 'x' : lower(noun.front());
  return std::string_view("aeiou").find(first) == std::string_view::npos ? "a" : "an";
}

// The position after the bracket group that opens at `open`; positions of its separators go to `bars` (open
// first, close last).
size_t scan_group(std::string_view text, size_t open, std::vector<size_t>& bars) {
  bars.assign(1, open);
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '[') ++depth;
    if (text[i] == '|' && depth == 1) bars.push_back(i);
    if (text[i] == ']' && --depth == 0) {
      bars.push_back(i);
      return i + 1;
    }
  }
  fail("[tales] template '{}': expected ']', found the end", text);
}

void render_slot(std::string_view slot, const Bindings& bindings, std::string& out) {
  const bool indefinite = slot.size() > 2 && slot[1] == ' ' && (slot[0] == 'a' || slot[0] == 'A');
  const bool capital = is_upper(slot.empty() ? 'a' : slot[0]);
  const size_t start = out.size();
  if (indefinite) {
    const std::string& value = bindings.get(slot.substr(2));
    out += article(value);
    out += ' ';
    out += value;
  } else if (capital) {
    char key[32];
    require(slot.size() < sizeof key, "[tales] template slot '{}' is too long", slot);
    slot.copy(key, slot.size());
    key[0] = lower(key[0]);
    out += bindings.get({key, slot.size()});
  } else {
    out += bindings.get(slot);
  }
  if (capital && start < out.size()) out[start] = upper(out[start]);
}

}  // namespace

Bindings& Bindings::set(std::string_view key, std::string_view value) {
  for (auto& [known, old] : values_) {
    if (known == key) {
      old = value;
      return *this;
    }
  }
  values_.emplace_back(key, value);
  return *this;
}

const std::string& Bindings::get(std::string_view key) const {
  for (const auto& [known, value] : values_) {
    if (known == key) return value;
  }
  fail("[tales] template slot '{}' has no value", key);
}

void render(std::string_view text, const Bindings& bindings, Rng& rng, std::string& out) {
  std::vector<size_t> bars;
  size_t i = 0;
  while (i < text.size()) {
    if (text[i] == '[') {
      const size_t after = scan_group(text, i, bars);
      const size_t choice = rng.below(bars.size() - 1);
      const size_t begin = bars[choice] + 1;
      render(text.substr(begin, bars[choice + 1] - begin), bindings, rng, out);
      i = after;
    } else if (text[i] == '{') {
      const size_t close = text.find('}', i);
      require(close != std::string_view::npos, "[tales] template '{}': expected '}}', found the end", text);
      render_slot(text.substr(i + 1, close - i - 1), bindings, out);
      i = close + 1;
    } else {
      size_t end = i + 1;
      while (end < text.size() && text[end] != '[' && text[end] != '{') ++end;
      out.append(text, i, end - i);
      i = end;
    }
  }
}

std::string render(std::string_view text, const Bindings& bindings, Rng& rng) {
  std::string out;
  render(text, bindings, rng, out);
  return out;
}

std::string with_article(std::string_view noun) {
  std::string out(article(noun));
  out += ' ';
  out += noun;
  return out;
}

std::string capitalized(std::string_view text) {
  std::string out(text);
  if (!out.empty()) out[0] = upper(out[0]);
  return out;
}

std::string enumerated(const std::vector<std::string>& items) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += i + 1 == items.size() ? " and " : ", ";
    out += items[i];
  }
  return out;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  size_t i = 0;
  while (i < text.size()) {
    const size_t end = std::min(text.find_first_of(" \n\t\r", i), text.size());
    if (end > i) words.emplace_back(text.substr(i, end - i));
    i = end + 1;
  }
  return words;
}

}  // namespace qkv::tales
