// tokenizer.json files that are broken in every way: one sentence that names the file, never a crash.
#include "tests/text/text_support.h"

namespace qkv {
namespace {

std::string error_for(const std::string& text) {
  return test::error_of([&] { test::tokenizer_from(text)->encode("some text"); });
}

Json valid() {
  return load_json(test::golden("text/byte_bpe.json"));
}

TEST(MalformedTokenizer, SaysWhatIsWrong) {
  const auto with = [](const char* pointer, const Json& value) {
    Json root = valid();
    root[Json::json_pointer(pointer)] = value;
    return error_for(dump_json(root));
  };
  const auto expect = [](const std::string& error, const std::string& part) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find("tokenizer.json"), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    EXPECT_LT(error.size(), 500u);
  };
  expect(error_for("{"), "not valid JSON");
  expect(error_for("{}"), "key 'model': expected an object");
  expect(error_for("[1]"), "expected an object");
  expect(error_for(R"({"model": {"type": "BPE"}})"), "expected an object 'vocab'");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": []}})"), "expected an object 'vocab'");
  expect(error_for(R"({"model": {"type": "Markov", "vocab": {"a": 0}}})"), "found 'Markov'");
  expect(error_for(R"({"model": {"type": "Unigram", "vocab": [["a", -0.5]]}})"),
         "'s' is not in the vocabulary");
  expect(error_for(R"({"model": {"type": "Unigram", "vocab": {"a": 0}}})"), "a list 'vocab'");
  expect(error_for(R"({"model": {"type": "Unigram", "vocab": [["a"]]}})"),
         "vocab 0: expected [token, score]");
  expect(error_for(R"({"model": {"type": "Unigram", "vocab": [["a", 1, 2]]}})"), "found the number 2");
  expect(error_for(R"({"model": {"type": "Unigram", "vocab": [["a", "b"]]}})"), "vocab 0");
  expect(error_for(R"({"model": {"type": "Unigram", "vocab": [["a", 1e999]]}})"), "number");
  expect(error_for(R"({"model": {"type": "Unigram", "vocab": [{}]}})"), "vocab 0");
  expect(error_for(R"({"model": {"type": "Unigram", "unk_id": 1, "vocab": [["a", 1]]}})"),
         "unk_id: expected 0 to 0");
  expect(error_for(R"({"model": {"type": "WordLevel", "vocab": {"a": 0}}})"), "no unknown token");
  expect(error_for(R"({"model": {"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}}})"), "dropout");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": "0"}}})"),
         "token 'a': expected an integer id");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": {}}}})"), "token 'a': expected an integer id");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": -1}}})"), "found -1");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 4294967296}}})"), "found 4294967296");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 99999999999999999999}}})"), "token 'a'");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 1.5}}})"), "token 'a'");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}}})"), "have the same id 0");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}}})"), "listed twice");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})"),
         "merge 0 ('a' + 'b'): token 'b'");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}})"),
         "token 'aa' is not");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["aa"]}})"),
         "expected two tokens");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}})"),
         "expected two tokens, found 1");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", 1]]}})"), "merge 0");
  expect(error_for(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [{}]}})"), "merge 0");
  expect(error_for(R"({"model": {"type": "WordPiece", "vocab": {"a": 0}}})"), "unk_token '[UNK]'");
  expect(with("/added_tokens", "x"), "expected a list");
  expect(with("/added_tokens/0", 5), "expected an object");
  expect(with("/added_tokens/0/id", -4), "found -4");
  expect(with("/added_tokens/0/id", 1e15), "expected an id");
  expect(with("/added_tokens/0/id", "7"), "expected an integer");
  expect(with("/added_tokens/0/id", 5), "have the same id 5");
  expect(with("/added_tokens/0/content", nullptr), "content");
  expect(with("/added_tokens/0/content", ""), "empty");
  expect(with("/pre_tokenizer", "ByteLevel"), "pre_tokenizer");
  expect(with("/pre_tokenizer/type", "Mystery"), "found 'Mystery'");
  expect(with("/pre_tokenizer", {{"type", "Sequence"}}), "pretokenizers");
  expect(with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "["}}}, {"behavior", "Isolated"}}),
         "does not compile");
  expect(with("/pre_tokenizer", {{"type", "Split"}, {"pattern", "x"}, {"behavior", "Isolated"}}),
         "expected a pattern");
  expect(with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Often"}}),
         "found 'Often'");
  expect(with("/normalizer", {{"type", "Magic"}}), "found 'Magic'");
  const auto precompiled = [&](const char* map) {
    return with("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", map}});
  };
  expect(precompiled("*"), "in base64");
  expect(precompiled("AAA="), "found 2 bytes");
  expect(precompiled("/////wAA"), "expected a trie");
  expect(precompiled("BAAAAAAAAAAB"), "end with a zero byte");
  expect(with("/normalizer", {{"type", "Replace"}, {"content", "x"}}), "expected a pattern");
  expect(with("/decoder", {{"type", "Magic"}}), "found 'Magic'");
  expect(with("/decoder", {{"type", "CTC"}, {"pad_token", ""}}), "CTC");
  expect(with("/decoder",
              {{"type", "Sequence"},
               {"decoders", {{{"type", "Fuse"}}, {{"type", "Strip"}, {"content", "x"}, {"start", 2}}}}}),
         "Strip");
  expect(with("/pre_tokenizer", {{"type", "FixedLength"}, {"length", 0}}), "found 0");
  expect(with("/decoder/type", 3), "expected a string");
  expect(with("/post_processor", {{"type", "TemplateProcessing"}, {"single", Json::array()}}),
         "expected a Sequence");
  expect(with("/post_processor", {{"type", "BertProcessing"}, {"sep", {"a", 1}}, {"cls", {"b", "x"}}}),
         "expected a token id");
  expect(with("/post_processor", {{"type", "BertProcessing"}, {"sep", {"a", 1}}, {"cls", {"b", 99999}}}),
         "found 99999");
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += R"({"type":"Sequence","normalizers":[)";
  expect(error_for(R"({"normalizer":)" + nested), "nested deeper");
}

TEST(MalformedTokenizer, RefusesEveryTruncation) {
  const std::string text = read_file(test::golden("text/byte_bpe.json"));
  for (size_t size = 0; size + 1 < text.size(); size += 211) {
    EXPECT_NE(error_for(text.substr(0, size)), "(no error)") << size;
  }
}

TEST(MalformedTokenizer, SurvivesRandomDamage) {
  const std::string text = read_file(test::golden("text/char_bpe.json"));
  Rng rng(77);
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    std::string damaged = text;
    for (uint64_t i = 0; i <= rng.below(4); ++i) {
      const size_t at = rng.below(damaged.size());
      if (rng.below(2) == 0) {
        damaged[at] = static_cast<char>(rng.below(256));
      } else {
        damaged.erase(at, 1 + rng.below(20));
      }
    }
    if (error_for(damaged) != "(no error)") ++refused;
  }
  EXPECT_GT(refused, 100);
}

TEST(MalformedTokenizer, RefusesBrokenConfigurations) {
  const auto error = [](const char* name, const char* text) {
    const test::TemporaryDirectory directory;
    std::filesystem::copy(test::golden("text/byte_bpe.json"), directory / "tokenizer.json");
    write_file(directory / name, text);
    return test::error_of([&] { load_tokenizer(directory.path()); });
  };
  EXPECT_NE(error("tokenizer_config.json", "[]").find("tokenizer_config.json: "), std::string::npos);
  EXPECT_NE(error("tokenizer_config.json", R"({"eos_token": 5})").find("'eos_token'"), std::string::npos);
  EXPECT_NE(error("tokenizer_config.json", R"({"add_bos_token": "yes"})").find("true or false"),
            std::string::npos);
  EXPECT_NE(error("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "a"}}})")
                .find("expected an id"),
            std::string::npos);
  EXPECT_NE(error("tokenizer_config.json", R"({"added_tokens_decoder": {"99999999": {"content": "a"}}})")
                .find("99999999"),
            std::string::npos);
  EXPECT_NE(error("tokenizer_config.json", R"({"chat_template": 1})").find("chat_template"),
            std::string::npos);
  EXPECT_NE(error("generation_config.json", R"({"eos_token_id": ["a"]})").find("eos_token_id"),
            std::string::npos);
  EXPECT_NE(error("added_tokens.json", R"({"<a>": "b"})").find("added_tokens.json"), std::string::npos);
  EXPECT_EQ(error("generation_config.json", R"({"eos_token_id": -1})"), "(no error)");
}

}  // namespace
}  // namespace qkv
