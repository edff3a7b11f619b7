#include "qkv/core/utf8.h"

#include <gtest/gtest.h>

namespace qkv {
namespace {

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(first_invalid_utf8("plain"), std::nullopt);
  EXPECT_EQ(first_invalid_utf8("h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"), std::nullopt);
  EXPECT_EQ(first_invalid_utf8("ab\xFFz"), 2u);
  EXPECT_EQ(first_invalid_utf8("\xC0\xAF"), 0u) << "overlong";
  EXPECT_EQ(first_invalid_utf8("a\xED\xA0\x80"), 1u) << "surrogate";
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0u) << "above U+10FFFF";
  EXPECT_EQ(first_invalid_utf8("ok\xE2\x82"), 2u) << "cut off";
}

TEST(Utf8, CutsAStreamOnlyBetweenCodePoints) {
  const std::string smile = "\xF0\x9F\x98\x80";
  for (size_t cut = 1; cut < 4; ++cut) EXPECT_EQ(complete_utf8_prefix("x" + smile.substr(0, cut)), 1u) << cut;
  EXPECT_EQ(complete_utf8_prefix("x" + smile), 5u);
  EXPECT_EQ(complete_utf8_prefix("x\xFF"), 2u) << "an invalid byte will never complete";
  EXPECT_EQ(complete_utf8_prefix("\x80\x80\x80\x80"), 4u);
  EXPECT_EQ(complete_utf8_prefix(""), 0u);
}

TEST(Utf8, ReplacesInvalidBytes) {
  EXPECT_EQ(replace_invalid_utf8("a\xFF" "b\xE2\x82"), "a\xEF\xBF\xBD" "b\xEF\xBF\xBD");
  EXPECT_EQ(replace_invalid_utf8("\xC3\xA9"), "\xC3\xA9");
}

TEST(Utf8, RoundTripsCodePoints) {
  for (char32_t c : {U'a', U'\u00e9', U'\u20ac', U'\U0001F600', U'\U0010FFFF'}) {
    std::string text;
    append_utf8(text, c);
    size_t position = 0;
    EXPECT_EQ(next_code_point(text, position), c);
    EXPECT_EQ(position, text.size());
  }
}

}  // namespace
}  // namespace qkv
