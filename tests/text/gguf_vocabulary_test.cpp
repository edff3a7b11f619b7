// GGUF's tokenizer keys in memory: what is written is read as the same tokenizer, and broken keys are named.
#include "qkv/text/gguf_vocabulary.h"

#include "qkv/core/metadata.h"
#include "qkv/text/gguf_pretokenizers.h"
#include "qkv/text/patterns.h"
#include "tests/text/text_support.h"

namespace qkv {
namespace {

std::vector<std::string> inputs() {
  auto list = load_json(test::golden("text/pipeline_vectors.json"))["texts"].get<std::vector<std::string>>();
  Rng rng(31);
  for (int i = 0; i < 100; ++i) list.push_back(test::random_unicode(rng, rng.below(200)));
  return list;
}

std::unique_ptr<Tokenizer> through_gguf(const Tokenizer& tokenizer, int64_t size) {
  Metadata metadata("written.gguf");
  write_gguf_vocabulary(tokenizer, size, metadata);
  return tokenizer_from_gguf(metadata);
}

void expect_equal(const Tokenizer& tokenizer, const Tokenizer& read, const std::string& name) {
  EXPECT_EQ(read.bos_id(), tokenizer.bos_id()) << name;
  EXPECT_EQ(read.eos_id(), tokenizer.eos_id()) << name;
  EXPECT_EQ(read.pad_id(), tokenizer.pad_id()) << name;
  EXPECT_EQ(read.stop_ids(), tokenizer.stop_ids()) << name;
  EXPECT_EQ(read.prefix_ids(), tokenizer.prefix_ids()) << name;
  EXPECT_EQ(read.suffix_ids(), tokenizer.suffix_ids()) << name;
  EXPECT_EQ(read.chat_template(), tokenizer.chat_template()) << name;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.id_to_token(id).empty()) continue;
    ASSERT_EQ(read.id_to_token(id), tokenizer.id_to_token(id)) << name;
    ASSERT_EQ(read.is_special(id), tokenizer.is_special(id)) << name << " " << id;
    if (id == tokenizer.unk_id()) continue;  // spelled " ⁇ " by SentencePiece
    ASSERT_EQ(read.token_bytes(id), tokenizer.token_bytes(id)) << name << " " << id;
  }
  for (const auto& text : inputs()) {
    EXPECT_EQ(read.encode(text), tokenizer.encode(text)) << name << ": '" << text << "'";
    const EncodeOptions plain{.add_special = false, .parse_special = false};
    EXPECT_EQ(read.encode(text, plain), tokenizer.encode(text, plain)) << name << ": '" << text << "'";
  }
}

TEST(GgufVocabulary, ByteBpeComesBack) {
  Json root = load_json(test::golden("text/byte_bpe.json"));
  for (const auto& row : gguf_pretokenizers()) {
    if (row.marks_spaces) continue;
    root["pre_tokenizer"] = pretokenizer_json(row);
    root["model"]["ignore_merges"] = row.ignore_merges;
    root["normalizer"] = row.normalizes_nfc ? Json{{"type", "NFC"}} : Json();
    const auto tokenizer = test::tokenizer_from(dump_json(root));
    Metadata metadata("written.gguf");
    write_gguf_vocabulary(*tokenizer, tokenizer->vocab_size() + 3, metadata);
    EXPECT_EQ(metadata.string("tokenizer.ggml.pre"), row.names.front());
    EXPECT_FALSE(metadata.has("qkv.tokenizer.pre_tokenizer")) << row.names.front();
    EXPECT_FALSE(metadata.has("qkv.tokenizer.normalizer")) << row.names.front();
    const auto read = tokenizer_from_gguf(metadata);
    expect_equal(*tokenizer, *read, std::string(row.names.front()));
    // The ids that the model has more are no tokens.
    EXPECT_EQ(metadata.strings("tokenizer.ggml.tokens").back(),
              "[PAD" + std::to_string(tokenizer->vocab_size() + 2) + "]");
    EXPECT_EQ(metadata.integers("tokenizer.ggml.token_type").back(), 5);
    EXPECT_EQ(read->vocab_size(), tokenizer->vocab_size());
  }
}

TEST(GgufVocabulary, KeepsWhatGgufCannotSay) {
  Json root = load_json(test::golden("text/byte_bpe.json"));
  root["normalizer"] = {{"type", "Lowercase"}};
  root["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", {{{"type", "Punctuation"}}, {{"type", "ByteLevel"}}}}};
  root["added_tokens"][0]["lstrip"] = true;
  root["added_tokens"].push_back({{"id", 710}, {"content", "<X>"}, {"special", false}, {"normalized", true}});
  const auto tokenizer = test::tokenizer_from(dump_json(root));
  Metadata metadata("written.gguf");
  metadata.set("general.name", std::string("x"));
  metadata.set("tokenizer.ggml.old", uint32_t{1});
  write_gguf_vocabulary(*tokenizer, 800, metadata);
  EXPECT_EQ(metadata.string("tokenizer.ggml.pre"), "unknown");
  EXPECT_TRUE(metadata.has("general.name"));
  EXPECT_FALSE(metadata.has("tokenizer.ggml.old"));
  const auto read = tokenizer_from_gguf(metadata);
  expect_equal(*tokenizer, *read, "custom");
  EXPECT_EQ(read->encode("a<x>b"), tokenizer->encode("a<x>b"));
  EXPECT_EQ(read->token_to_id("<X>"), 710);
}

TEST(GgufVocabulary, WordPieceComesBack) {
  const auto tokenizer = load_tokenizer(test::golden("text/wordpiece.json"));
  expect_equal(*tokenizer, *through_gguf(*tokenizer, tokenizer->vocab_size()), "wordpiece");
}

TEST(GgufVocabulary, UnigramComesBack) {
  // With spaces as SentencePiece treats them, and without rules for characters: the library's differ on odd
  // ones.
  Json root = load_json(test::golden("text/unigram.json"));
  root["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Replace"}, {"pattern", {{"Regex", "\\A +| +\\z| +(?= )"}}}, {"content", ""}},
        {{"type", "Prepend"}, {"prepend", "▁"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
  root["pre_tokenizer"] = nullptr;
  root["added_tokens"].erase(4);  // a token in the normalized text
  const auto tokenizer = test::tokenizer_from(dump_json(root));
  const auto read = through_gguf(*tokenizer, tokenizer->vocab_size() + 1);
  EXPECT_EQ(read->kind(), "sentencepiece-unigram");
  expect_equal(*tokenizer, *read, "unigram");
}

TEST(GgufVocabulary, MarkedBpeComesBackAsSentencePiece) {
  // llama2 as Hugging Face's converter writes it; every way to cut a token is a merge.
  const char* json =
      R"({"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true}],
          "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
            {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
          "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
            {"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
          "model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,
            "vocab":{"<unk>":0,"<s>":1,"▁":2,"a":3,"b":4,"c":5,"ab":6,"bc":7,"abc":8,"▁a":9,"▁abc":10},
            "merges":["b c","a b","a bc","ab c","▁ a","▁ abc","▁a bc"]}})";
  const auto tokenizer = test::tokenizer_from(json);
  const auto read = through_gguf(*tokenizer, 12);
  EXPECT_EQ(read->kind(), "sentencepiece-bpe");
  Rng rng(6);
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (uint64_t k = rng.below(12); k > 0; --k) text += "abc d"[rng.below(5)];
    EXPECT_EQ(read->encode(text), tokenizer->encode(text)) << "'" << text << "'";
  }
  // A way to cut that is no merge: SentencePiece would use it.
  std::string broken = json;
  broken.replace(broken.find(R"("ab c",)"), 7, "");
  EXPECT_NE(
      test::error_of([&] { through_gguf(*test::tokenizer_from(broken), 12); }).find("'abc' has 1 merges"),
      std::string::npos);
}

TEST(GgufVocabulary, RefusesWhatGgufHasNot) {
  const auto refusal = [](const std::string& json, int64_t size) {
    return test::error_of([&] { through_gguf(*test::tokenizer_from(json), size); });
  };
  const char* words = R"({"model":{"type":"WordLevel","vocab":{"<unk>":0,"a":1}}})";
  EXPECT_NE(refusal(words, 2).find("whole words"), std::string::npos);
  EXPECT_NE(refusal(words, 1).find("has 2 ids, the model only 1"), std::string::npos);
  const char* unmarked = R"({"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}})";
  EXPECT_NE(refusal(unmarked, 2).find("marks spaces"), std::string::npos);
}

Metadata small_bpe() {
  Metadata metadata("small.gguf");
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", std::string("gpt-2"));
  metadata.set("tokenizer.ggml.tokens",
               std::vector<std::string>{"a", "b", "ab", "<|im_end|>", "  ", "[PAD5]"});
  metadata.set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 3, 4, 5});
  metadata.set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  return metadata;
}

TEST(GgufVocabulary, ReadsTypesAndIds) {
  Metadata metadata = small_bpe();
  metadata.set("tokenizer.ggml.bos_token_id", uint32_t{3});
  metadata.set("tokenizer.ggml.add_bos_token", true);
  metadata.set("tokenizer.chat_template", std::string("T"));
  const auto tokenizer = tokenizer_from_gguf(metadata);
  EXPECT_EQ(tokenizer->kind(), "byte-bpe");
  EXPECT_EQ(tokenizer->encode("ab  b<|im_end|>"), (test::Ids{3, 2, 4, 1, 3}));
  EXPECT_EQ(tokenizer->encode("b<|im_end|>", {.add_special = false, .parse_special = false}), (test::Ids{1}));
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(tokenizer->stop_ids(), (test::Ids{3}));
  EXPECT_EQ(tokenizer->chat_template(), "T");
  EXPECT_EQ(tokenizer->decode(test::Ids{2, 4, 1}), "ab  b");
}

TEST(GgufVocabulary, SaysWhatIsWrong) {
  const auto error = [](const char* key, MetadataValue value) {
    Metadata metadata = small_bpe();
    metadata.set(key, std::move(value));
    return test::error_of([&] { tokenizer_from_gguf(metadata); });
  };
  const auto expect = [](const std::string& error, const std::string& part) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_TRUE(error.starts_with("small.gguf: ")) << error;
  };
  using Strings = std::vector<std::string>;
  expect(error("tokenizer.ggml.model", std::string("rwkv")), "found 'rwkv'");
  expect(error("tokenizer.ggml.model", uint32_t{1}), "expected a string");
  expect(error("tokenizer.ggml.pre", std::string("qwen3")), "did you mean 'qwen2'?");
  expect(error("tokenizer.ggml.tokens", Strings{}), "expected tokens");
  expect(error("tokenizer.ggml.tokens", std::string("a")), "a list of strings");
  expect(error("tokenizer.ggml.tokens", Strings{"a", "b", "ab", "a"}), "'a' has id 3, but id 0");
  expect(error("tokenizer.ggml.token_type", std::vector<int32_t>{1}), "expected 6 types, found 1");
  expect(error("tokenizer.ggml.merges", Strings{"ab"}), "merge 0: expected two tokens");
  expect(error("tokenizer.ggml.merges", Strings{"a c"}), "token 'c' is not in the vocabulary");
  expect(error("qkv.tokenizer.normalizer", std::string("{")), "not valid JSON");
  expect(error("qkv.tokenizer.added_tokens", std::string("{}")), "expected a list");
  expect(error("qkv.tokenizer.config", std::string("?")), "not valid JSON");
  EXPECT_NE(test::error_of([] {
              tokenizer_from_gguf(Metadata("none.gguf"));
            }).find("none.gguf: expected a vocabulary"),
            std::string::npos);
  Metadata spm = small_bpe();
  spm.set("tokenizer.ggml.model", std::string("llama"));
  spm.set("tokenizer.ggml.scores", std::vector<float>{1});
  expect(test::error_of([&] { tokenizer_from_gguf(spm); }), "expected 6 scores, found 1");
  spm.erase("tokenizer.ggml.scores");
  spm.set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 1, 6, 3, 4, 5});
  expect(test::error_of([&] { tokenizer_from_gguf(spm); }), "a name like <0x0A>, found 'ab'");
}

TEST(GgufVocabulary, KnowsThePatternsInOtherSpellings) {
  const auto patterns = [](const char* json) { return pretokenizer_patterns(parse_json(json, "test")); };
  EXPECT_EQ(patterns(R"({"type":"ByteLevel","add_prefix_space":false})"),
            (std::vector<std::string>{std::string(kGpt2Pattern)}));
  EXPECT_EQ(patterns(R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},
                        {"type":"ByteLevel","add_prefix_space":false}]})"),
            (std::vector<std::string>{"\\p{N}", std::string(kGpt2Pattern)}));
  EXPECT_FALSE(patterns(R"({"type":"ByteLevel","add_prefix_space":true})"));
  EXPECT_FALSE(patterns(R"({"type":"Whitespace"})"));
  EXPECT_FALSE(patterns("null"));
  Json removed = {{"type", "Sequence"},
                  {"pretokenizers",
                   {{{"type", "Split"},
                     {"pattern", {{"Regex", std::string(kLlama3Pattern)}}},
                     {"behavior", "Removed"},
                     {"invert", true}},
                    {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  EXPECT_EQ(pretokenizer_patterns(removed), (std::vector<std::string>{std::string(kLlama3Pattern)}));
}

}  // namespace
}  // namespace qkv
