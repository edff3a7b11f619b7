// Sets of code points as automata over bytes: one table of 256 entries per number of bytes seen.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "qkv/engine/grammar/character_set.h"

namespace qkv {

class Utf8Automaton {
 public:
  // What a byte leads to: nothing, the end of a character of the set, or a further table.
  static constexpr uint16_t kReject = 0, kDone = 1, kFirstTable = 2;
  static constexpr size_t kMaximumTables = 1 << 14;

  // The table of the first byte. Error if all sets together need more than kMaximumTables.
  uint16_t add(const CharacterSet& set);
  uint16_t step(uint16_t table, uint8_t byte) const { return tables_[table - kFirstTable][byte]; }

  // Bytes of the same class lead to the same everywhere. Class 0 is that of bytes which no table knows, if
  // any.
  struct ByteClasses {
    std::array<uint8_t, 256> of_byte;
    size_t count = 0;
  };
  ByteClasses byte_classes() const;

 private:
  using Table = std::array<uint16_t, 256>;
  uint16_t intern(const Table& table);
  // After a lead byte and perhaps more: `prefix` is the value so far, `missing` the bytes to come.
  uint16_t continuation(const CharacterSet& set, char32_t prefix, int missing);

  std::vector<Table> tables_;
  std::map<Table, uint16_t> known_;
};

}  // namespace qkv
