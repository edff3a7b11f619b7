// A cursor over the source of a grammar or regular expression, which knows how to complain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qkv {

class SourceText {
 public:
  // Error unless valid UTF-8. The text must outlive this.
  SourceText(std::string_view text, std::string_view where);

  size_t position() const { return position_; }
  bool at_end() const { return position_ == text_.size(); }
  std::string_view rest() const { return text_.substr(position_); }
  char32_t peek() const;                 // 0 at the end
  char32_t next();                       // 0 at the end
  bool skip(std::string_view expected);  // moves over it if it is there

  // Decimal digits. nullopt if there is none; a number above `limit` is refused.
  std::optional<int64_t> number(int64_t limit);
  // Exactly so many hexadecimal digits: their value; as a code point.
  uint32_t hexadecimal_number(int digits);
  char32_t hexadecimal(int digits);

  // Throws Error "<where>:<line>:<column>: expected <expected>, found <what is there>", the latter by default
  // what stands at the cursor.
  [[noreturn]] void expected(std::string_view what) const;
  [[noreturn]] void expected(std::string_view what, std::string_view found, size_t position) const;
  // Throws Error "<where>:<line>:<column>: <sentence>".
  [[noreturn]] void refuse(std::string_view sentence, size_t position) const;

 private:
  std::string_view text_;
  std::string where_;
  size_t position_ = 0;
};

}  // namespace qkv
