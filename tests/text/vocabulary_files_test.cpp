// Vocabularies that are not a tokenizer.json, and the files beside them.
#include "tests/text/text_support.h"

namespace qkv {
namespace {

TEST(VocabularyFiles, ReadsGpt2Pairs) {
  for (const auto& [vocabulary, merges] :
       {std::pair("vocab.json", "merges.txt"), std::pair("encoder.json", "vocab.bpe")}) {
    const test::TemporaryDirectory directory;
    write_file(directory / vocabulary,
               R"({"l":0,"o":1,"w":2,"\u0120":3,"lo":4,"\u0120low":5,"low":6,"<|endoftext|>":7,"model":8})");
    write_file(directory / merges, "#version: 0.2\nl o\nlo w\nĠ low\n");
    const auto tokenizer = load_tokenizer(directory.path());
    EXPECT_EQ(tokenizer->kind(), "byte-bpe");
    EXPECT_EQ(tokenizer->encode("low low<|endoftext|>lo"), (test::Ids{6, 5, 7, 4}));
    EXPECT_EQ(tokenizer->eos_id(), 7);
    EXPECT_TRUE(tokenizer->is_special(7));
    EXPECT_EQ(tokenizer->decode(test::Ids{6, 5, 7, 4}), "low lowlo");
  }
}

TEST(VocabularyFiles, ReadsRanksOfTiktoken) {
  const test::TemporaryDirectory directory;
  // a, b, c, ab, bc, abc: "bc" (4) joins after "ab" (3).
  write_file(directory / "x.tiktoken", "YQ== 0\r\nYg== 1\r\nYw== 2\r\nYWI= 3\r\nYmM= 4\r\nYWJj 5\r\n");
  const auto tokenizer = load_tokenizer(directory.path());
  EXPECT_EQ(tokenizer->encode("abc"), (test::Ids{5}));
  EXPECT_EQ(tokenizer->encode("aabcb"), (test::Ids{0, 5, 1}));
  EXPECT_EQ(tokenizer->encode("bcab"), (test::Ids{4, 3}));
  const test::TemporaryDirectory copy;
  tokenizer->save(copy.path());
  EXPECT_EQ(load_tokenizer(copy.path())->encode("bcabaabcb"), tokenizer->encode("bcabaabcb"));
}

TEST(VocabularyFiles, ReadsBertWordLists) {
  const test::TemporaryDirectory directory;
  write_file(directory / "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nplay\n##ing\n!\n");
  const auto tokenizer = load_tokenizer(directory.path());
  EXPECT_EQ(tokenizer->kind(), "wordpiece");
  EXPECT_EQ(tokenizer->encode("Playing! zebra"), (test::Ids{2, 5, 6, 7, 1, 3}));
  EXPECT_EQ(tokenizer->decode(test::Ids{2, 5, 6, 7, 3}), "playing!");
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->bos_id(), 2);
  write_file(directory / "tokenizer_config.json", R"({"do_lower_case": false})");
  EXPECT_EQ(load_tokenizer(directory.path())->encode("Play play"), (test::Ids{2, 1, 5, 3}));
}

TEST(VocabularyFiles, PrefersTokenizerJson) {
  const test::TemporaryDirectory directory;
  write_file(directory / "vocab.txt", "[UNK]\na\n");
  EXPECT_EQ(load_tokenizer(directory.path())->kind(), "wordpiece");
  std::filesystem::copy(test::golden("text/byte_bpe.json"), directory / "tokenizer.json");
  EXPECT_EQ(load_tokenizer(directory.path())->kind(), "byte-bpe");
}

TEST(VocabularyFiles, ReadsTheConfigurationBesideIt) {
  const test::TemporaryDirectory directory;
  std::filesystem::copy(test::golden("text/byte_bpe.json"), directory / "tokenizer.json");
  write_file(
      directory / "tokenizer_config.json",
      R"({"bos_token": null, "eos_token": {"content": "<|im_end|>", "special": true}, "add_bos_token": true,
                 "model_max_length": 4096, "chat_template": "{{ messages }}", "tokenizer_class": "GPT2Tokenizer"})");
  write_file(directory / "special_tokens_map.json",
             R"({"bos_token": "<|im_start|>", "pad_token": "<|endoftext|>"})");
  write_file(directory / "generation_config.json", R"({"eos_token_id": [699, 697], "temperature": 0.6})");
  const auto tokenizer = load_tokenizer(directory.path());
  EXPECT_EQ(tokenizer->bos_id(), 698);
  EXPECT_EQ(tokenizer->eos_id(), 699);
  EXPECT_EQ(tokenizer->pad_id(), 697);
  EXPECT_EQ(tokenizer->stop_ids(), (std::vector<int32_t>{699, 697}));
  EXPECT_EQ(tokenizer->prefix_ids(), (std::vector<int32_t>{698}));
  EXPECT_EQ(tokenizer->chat_template(), "{{ messages }}");
  EXPECT_EQ(tokenizer->encode("").front(), 698);
  EXPECT_TRUE(tokenizer->encode("", {.add_special = false}).empty());

  tokenizer->save(directory.path());  // over its own files
  const auto loaded = load_tokenizer(directory.path());
  EXPECT_EQ(loaded->stop_ids(), tokenizer->stop_ids());
  EXPECT_EQ(loaded->prefix_ids(), tokenizer->prefix_ids());
  EXPECT_EQ(load_json(directory / "tokenizer_config.json")["model_max_length"], 4096);
  EXPECT_EQ(load_json(directory / "generation_config.json")["temperature"], 0.6);
  write_file(directory / "chat_template.jinja", "other");
  EXPECT_EQ(load_tokenizer(directory.path())->chat_template(), "other");
}

TEST(VocabularyFiles, SetsSpecialIds) {
  const auto tokenizer = load_tokenizer(test::golden("text/byte_bpe.json"));
  tokenizer->set_eos_id(699);
  tokenizer->set_pad_id(697);
  EXPECT_EQ(tokenizer->stop_ids(), (std::vector<int32_t>{699}));
  EXPECT_NE(test::error_of([&] { tokenizer->set_bos_id(100000); }).find("BOS id"), std::string::npos);
  EXPECT_NE(test::error_of([&] { tokenizer->set_stop_ids({3, -1}); }).find("stop id"), std::string::npos);
}

TEST(VocabularyFiles, NamesWhatIsMissingOrWrong) {
  const test::TemporaryDirectory directory;
  const auto error = [&] { return test::error_of([&] { load_tokenizer(directory.path()); }); };
  EXPECT_NE(error().find("found none of them"), std::string::npos);
  EXPECT_NE(test::error_of([&] { load_tokenizer(directory / "absent"); }).find("found nothing"),
            std::string::npos);
  write_file(directory / "x.tiktoken", "YQ== 0\nYg==\n");
  EXPECT_NE(error().find("line 2: expected a base64 token"), std::string::npos) << error();
  write_file(directory / "x.tiktoken", "YQ== 0\nYQ== 1\n");
  EXPECT_NE(error().find("listed twice"), std::string::npos) << error();
  write_file(directory / "vocab.json", R"({"a": 0})");
  write_file(directory / "merges.txt", "a b c\n");
  EXPECT_NE(error().find("merges.txt: line 1: expected two tokens"), std::string::npos) << error();
  write_file(directory / "merges.txt", "a b\n");
  EXPECT_NE(error().find("token 'b' is not in the vocabulary"), std::string::npos) << error();
  write_file(directory / "tokenizer.model", "");
  EXPECT_NE(error().find("found an empty file"), std::string::npos) << error();
  write_file(directory / "tokenizer.model", "hello there, this is no model");
  EXPECT_NE(error().find("expected a SentencePiece model"), std::string::npos) << error();
}

}  // namespace
}  // namespace qkv
