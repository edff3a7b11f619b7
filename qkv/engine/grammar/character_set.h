// A set of Unicode code points, as grammars and regular expressions write them in brackets.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace qkv {

struct CharacterRange {
  char32_t first, last;  // both in the set
  bool operator==(const CharacterRange&) const = default;
};

// Only code points that UTF-8 can spell: surrogates and what is above U+10FFFF are left out.
class CharacterSet {
 public:
  CharacterSet() = default;
  // In any order, overlapping or not.
  explicit CharacterSet(std::vector<CharacterRange> ranges);
  static CharacterSet one(char32_t character) { return CharacterSet({{character, character}}); }
  static CharacterSet of(std::string_view ascii);  // its characters
  static CharacterSet all();

  CharacterSet complement() const;
  CharacterSet operator|(const CharacterSet& other) const;
  CharacterSet operator&(const CharacterSet& other) const;
  CharacterSet operator-(const CharacterSet& other) const { return *this & other.complement(); }

  bool empty() const { return ranges_.empty(); }
  bool contains(char32_t character) const;
  // Sorted, neither overlapping nor adjacent.
  const std::vector<CharacterRange>& ranges() const { return ranges_; }

 private:
  std::vector<CharacterRange> ranges_;
};

}  // namespace qkv
