// StreamDecoder: whole characters only, and nothing lost.
#include "tests/text/text_support.h"

namespace qkv {
namespace {

TEST(StreamDecoder, WaitsForTheRestOfACharacter) {
  const auto tokenizer = load_tokenizer(test::golden("text/byte_bpe.json"));
  StreamDecoder decoder(*tokenizer);
  std::vector<std::string> parts;
  for (const int32_t id : tokenizer->encode("a🚀b")) parts.push_back(decoder.push(id));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "", "", "🚀", "b"}));
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, ReplacesWhatNeverBecomesACharacter) {
  const auto tokenizer = load_tokenizer(test::golden("text/byte_bpe.json"));
  StreamDecoder decoder(*tokenizer);
  std::string text;
  for (const int32_t id : tokenizer->encode("x\xE2\x82y\xFF")) text += decoder.push(id);
  EXPECT_EQ(text + decoder.finish(), "x\uFFFDy\uFFFD");
  for (const int32_t id : tokenizer->encode("\xF0\x9F")) EXPECT_EQ(decoder.push(id), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, DropsTheDummyPrefixAtTheStartOnly) {
  const auto tokenizer = load_tokenizer(test::golden("text/char_bpe.json"));
  ASSERT_TRUE(tokenizer->join_rules().strips_leading_space);
  const auto ids = tokenizer->encode("the  the");
  EXPECT_EQ(test::streamed(*tokenizer, ids), "the  the");
  StreamDecoder continuing(*tokenizer, true, true);
  std::string text;
  for (const int32_t id : ids) text += continuing.push(id);
  EXPECT_EQ(text + continuing.finish(), " the  the");
}

TEST(StreamDecoder, ShowsSpecialTokensOnRequest) {
  const auto tokenizer = load_tokenizer(test::golden("text/byte_bpe.json"));
  const auto ids = tokenizer->encode("hi<|im_end|>");
  EXPECT_EQ(test::streamed(*tokenizer, ids, true), "hi");
  EXPECT_EQ(test::streamed(*tokenizer, ids, false), "hi<|im_end|>");
}

TEST(StreamDecoder, EqualsDecodingForAnyIds) {
  Rng rng(2);
  for (const char* name : {"text/byte_bpe.json", "text/char_bpe.json", "text/wordpiece.json"}) {
    const auto tokenizer = load_tokenizer(test::golden(name));
    for (int round = 0; round < 200; ++round) {
      test::Ids ids;
      for (uint64_t i = rng.below(40); i > 0; --i) {
        ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(tokenizer->vocab_size()) + 5)) -
                      2);
      }
      EXPECT_EQ(test::streamed(*tokenizer, ids), replace_invalid_utf8(tokenizer->decode(ids))) << name;
    }
  }
}

}  // namespace
}  // namespace qkv
