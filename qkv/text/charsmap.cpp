// Walking the double array, which was checked once: it comes from a file.
#include "qkv/text/charsmap.h"

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/unicode.h"

namespace qkv {
namespace {

// A unit of Darts-clone: label in bits 0-7, "has a value" in bit 8, offset above with its shift in bit 9. A
// unit that is a value has bit 31 set, so that its label is none.
bool has_value(uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}
uint32_t value(uint32_t unit) {
  return unit & 0x7FFFFFFFu;
}
uint32_t label(uint32_t unit) {
  return unit & 0x800000FFu;
}
uint32_t offset(uint32_t unit) {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

uint32_t little_endian(std::string_view bytes, size_t at) {
  uint32_t number = 0;
  for (size_t i = 0; i < 4; ++i)
    number |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[at + i])) << (8 * i);
  return number;
}

}  // namespace

Charsmap::Charsmap(std::string_view blob, const std::string& where) {
  require(blob.size() >= 4, "{}: precompiled_charsmap: expected the size of its trie, found {} bytes", where,
          blob.size());
  const size_t size = little_endian(blob, 0);
  require(size % 4 == 0 && size > 0 && size <= blob.size() - 4,
          "{}: precompiled_charsmap: expected a trie of 4 to {} bytes, found {}", where, blob.size() - 4,
          size);
  units_.resize(size / 4);
  for (size_t i = 0; i < units_.size(); ++i) units_[i] = little_endian(blob, 4 + 4 * i);
  replacements_ = blob.substr(4 + size);
  require(!replacements_.empty() && replacements_.back() == '\0',
          "{}: precompiled_charsmap: expected replacements that end with a zero byte", where);
  require(!first_invalid_utf8(replacements_), "{}: precompiled_charsmap: expected replacements in UTF-8",
          where);
  check_trie(where);
}

// Visits every node that some text leads to.
void Charsmap::check_trie(const std::string& where) const {
  std::vector<bool> seen(units_.size());
  std::vector<uint32_t> open;
  // `base`: where the children of a node are found.
  const auto reach = [&](size_t base) {
    require((base | 0xFF) < units_.size(),
            "{}: precompiled_charsmap: its trie leads outside, to {} of {} units", where, base,
            units_.size());
    if (seen[base]) return;
    seen[base] = true;
    open.push_back(static_cast<uint32_t>(base));
  };
  reach(offset(units_[0]));
  while (!open.empty()) {
    const uint32_t base = open.back();
    open.pop_back();
    for (uint32_t byte = 1; byte < 256; ++byte) {
      const uint32_t node = base ^ byte, unit = units_[node];
      if (label(unit) != byte) continue;
      const size_t next = node ^ offset(unit);
      reach(next);
      require(!has_value(unit) || value(units_[next]) < replacements_.size(),
              "{}: precompiled_charsmap: expected replacements below {}, found {}", where,
              replacements_.size(), value(units_[next]));
    }
  }
}

std::optional<std::string_view> Charsmap::shortest(std::string_view text) const {
  if (units_.empty()) return std::nullopt;
  size_t node = offset(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    const uint32_t unit = units_[node];
    if (label(unit) != byte) return std::nullopt;
    node ^= offset(unit);
    if (has_value(unit)) return std::string_view(replacements_.c_str() + value(units_[node]));
  }
  return std::nullopt;
}

std::string Charsmap::rewrite(std::string_view text) const {
  constexpr size_t kLongestCluster = 5;
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = cluster_end(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    begin = end;
    if (cluster.size() <= kLongestCluster) {
      if (const auto replacement = shortest(cluster)) {
        out += *replacement;
        continue;
      }
    }
    for (size_t i = 0; i < cluster.size();) {
      const size_t at = i;
      next_code_point(cluster, i);
      const std::string_view character = cluster.substr(at, i - at);
      out += shortest(character).value_or(character);
    }
  }
  return out;
}

}  // namespace qkv
