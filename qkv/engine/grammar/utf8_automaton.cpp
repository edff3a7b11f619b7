#include "qkv/engine/grammar/utf8_automaton.h"

#include <algorithm>
#include <utility>

#include "qkv/core/error.h"

namespace qkv {
namespace {

// The code points of each length of UTF-8, and the bits that its first byte begins with.
struct Length {
  CharacterRange range;
  uint8_t lead, payload;  // the first byte is lead + (0 .. payload)
};
constexpr Length kLengths[] = {{{0x0, 0x7F}, 0x00, 0x7F},
                               {{0x80, 0x7FF}, 0xC0, 0x1F},
                               {{0x800, 0xFFFF}, 0xE0, 0x0F},
                               {{0x10000, 0x10FFFF}, 0xF0, 0x07}};

bool overlaps(const CharacterSet& set, char32_t first, char32_t last) {
  const auto& ranges = set.ranges();
  const auto found =
      std::lower_bound(ranges.begin(), ranges.end(), first,
                       [](const CharacterRange& range, char32_t value) { return range.last < value; });
  return found != ranges.end() && found->first <= last;
}

bool covers(const CharacterSet& set, char32_t first, char32_t last) {
  const auto& ranges = set.ranges();
  const auto found =
      std::lower_bound(ranges.begin(), ranges.end(), first,
                       [](const CharacterRange& range, char32_t value) { return range.last < value; });
  return found != ranges.end() && found->first <= first && found->last >= last;
}

}  // namespace

uint16_t Utf8Automaton::intern(const Table& table) {
  const auto [entry, is_new] = known_.try_emplace(table, static_cast<uint16_t>(kFirstTable + tables_.size()));
  if (is_new) {
    require(tables_.size() < kMaximumTables,
            "[grammar] the sets of characters need more than {} tables: use fewer or simpler ones",
            kMaximumTables);
    tables_.push_back(table);
  }
  return entry->second;
}

uint16_t Utf8Automaton::continuation(const CharacterSet& set, char32_t prefix, int missing) {
  Table table{};
  const int shift = 6 * (missing - 1);
  uint16_t whole = kReject;  // the continuation of a byte whose every completion is in the set
  for (char32_t payload = 0; payload < 64; ++payload) {
    const char32_t value = prefix << 6 | payload;
    const char32_t first = value << shift, last = first + ((char32_t{1} << shift) - 1);
    if (!overlaps(set, first, last)) continue;
    uint16_t next = kDone;
    if (missing > 1) {
      if (!covers(set, first, last)) {
        next = continuation(set, value, missing - 1);
      } else {
        if (whole == kReject) whole = continuation(set, value, missing - 1);
        next = whole;
      }
    }
    table[0x80 | payload] = next;
  }
  return intern(table);
}

uint16_t Utf8Automaton::add(const CharacterSet& set) {
  Table table{};
  for (int length = 1; length <= 4; ++length) {
    const auto& [range, lead, payload] = kLengths[length - 1];
    const CharacterSet part = set & CharacterSet({range});
    if (part.empty()) continue;
    const int shift = 6 * (length - 1);
    uint16_t whole = kReject;
    for (char32_t value = 0; value <= payload; ++value) {
      const char32_t first = value << shift, last = first + ((char32_t{1} << shift) - 1);
      if (!overlaps(part, first, last)) continue;
      uint16_t next = kDone;
      if (length > 1) {
        if (!covers(part, first, last)) {
          next = continuation(part, value, length - 1);
        } else {
          if (whole == kReject) whole = continuation(part, value, length - 1);
          next = whole;
        }
      }
      table[lead | value] = next;
    }
  }
  return intern(table);
}

Utf8Automaton::ByteClasses Utf8Automaton::byte_classes() const {
  ByteClasses classes{};
  classes.count = 1;
  for (const Table& table : tables_) {
    std::map<std::pair<uint8_t, uint16_t>, uint8_t> refined;
    for (size_t byte = 0; byte < 256; ++byte) {
      // At most 256 classes, and the numbers fit.
      const auto [entry, is_new] =
          refined.try_emplace({classes.of_byte[byte], table[byte]}, static_cast<uint8_t>(refined.size()));
      classes.of_byte[byte] = entry->second;
    }
    classes.count = refined.size();
  }
  return classes;
}

}  // namespace qkv
