// Every kind of tokenizer.json against ids and texts computed by Hugging Face's tokenizers (the Rust
// library).
#include "tests/text/text_support.h"

namespace qkv {
namespace {

struct Case {
  std::string name;
  std::string tokenizer_json;
  std::vector<std::string> texts;
  std::vector<test::Ids> ids;
  std::vector<std::string> decoded;
};

// The base's tokenizer.json with the case's keys replaced (added tokens appended, or replaced by those of the
// key with an exclamation mark; the model's keys merged).
std::string patched(const Json& item) {
  Json root = load_json(test::golden("text/" + item["base"].get<std::string>() + ".json"));
  for (const auto& [key, value] : item["patch"].items()) {
    if (key == "model") {
      root["model"].update(value);
    } else if (key == "added_tokens") {
      for (const auto& token : value) root[key].push_back(token);
    } else if (key == "added_tokens!") {
      root["added_tokens"] = value;
    } else {
      root[key] = value;
    }
  }
  return dump_json(root);
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> made;
    for (const char* file : {"text/pipeline_vectors.json", "text/model_vectors.json"}) {
      const Json vectors = load_json(test::golden(file));
      const auto texts = vectors["texts"].get<std::vector<std::string>>();
      for (const auto& item : vectors["cases"]) {
        made.push_back({item["name"], patched(item), texts, item["ids"].get<std::vector<test::Ids>>(),
                        item["decoded"].get<std::vector<std::string>>()});
      }
    }
    return made;
  }();
  return all;
}

TEST(Pipeline, GivesTheReferenceIds) {
  ASSERT_GE(cases().size(), 55u);
  for (const auto& item : cases()) {
    const auto tokenizer = test::tokenizer_from(item.tokenizer_json);
    for (size_t i = 0; i < item.texts.size(); ++i) {
      EXPECT_EQ(tokenizer->encode(item.texts[i]), item.ids[i]) << item.name << ": '" << item.texts[i] << "'";
    }
  }
}

TEST(Pipeline, GivesTheReferenceTexts) {
  for (const auto& item : cases()) {
    const auto tokenizer = test::tokenizer_from(item.tokenizer_json);
    for (size_t i = 0; i < item.texts.size(); ++i) {
      EXPECT_EQ(replace_invalid_utf8(tokenizer->decode(item.ids[i])), item.decoded[i])
          << item.name << ": '" << item.texts[i] << "'";
    }
  }
}

TEST(Pipeline, StreamsWhatItDecodes) {
  for (const auto& item : cases()) {
    const auto tokenizer = test::tokenizer_from(item.tokenizer_json);
    for (const auto& ids : item.ids) {
      for (const bool skip_special : {true, false}) {
        EXPECT_EQ(test::streamed(*tokenizer, ids, skip_special),
                  replace_invalid_utf8(tokenizer->decode(ids, skip_special)))
            << item.name;
      }
    }
  }
}

TEST(Pipeline, IsTheSameAfterSavingAndLoading) {
  for (const auto& item : cases()) {
    const auto tokenizer = test::tokenizer_from(item.tokenizer_json);
    const test::TemporaryDirectory directory;
    tokenizer->save(directory.path());
    const auto loaded = load_tokenizer(directory.path());
    EXPECT_EQ(loaded->to_json(), tokenizer->to_json()) << item.name;
    EXPECT_EQ(loaded->vocab_size(), tokenizer->vocab_size()) << item.name;
    EXPECT_EQ(loaded->bos_id(), tokenizer->bos_id()) << item.name;
    EXPECT_EQ(loaded->eos_id(), tokenizer->eos_id()) << item.name;
    EXPECT_EQ(loaded->unk_id(), tokenizer->unk_id()) << item.name;
    for (size_t i = 0; i < item.texts.size(); ++i)
      EXPECT_EQ(loaded->encode(item.texts[i]), item.ids[i]) << item.name;
  }
}

TEST(Pipeline, ReadsTheSpellingOfAByteAsText) {
  const auto tokenizer = test::tokenizer_from(
      R"({"decoder":{"type":"ByteFallback"},"model":{"type":"Unigram","byte_fallback":true,"unk_id":0,
          "vocab":[["<unk>",0],["<0x0A>",0],["<",-3],["0",-3],["x",-3],["A",-3],[">",-3]]}})");
  EXPECT_EQ(tokenizer->encode("<0x0A>"), (test::Ids{2, 3, 4, 3, 5, 6}));
  EXPECT_EQ(tokenizer->encode("x\n"), (test::Ids{4, 1}));
  EXPECT_EQ(tokenizer->decode(test::Ids{4, 1}), "x\n");
  EXPECT_EQ(tokenizer->encode("x?"), (test::Ids{4, 0}));
}

TEST(Pipeline, DropsTheSpaceBehindTheLastWord) {
  const auto tokenizer = test::tokenizer_from(
      R"({"pre_tokenizer":{"type":"WhitespaceSplit"},"decoder":{"type":"BPEDecoder","suffix":"</w>"},
          "model":{"type":"BPE","end_of_word_suffix":"</w>","vocab":{"a":0,"b":1,"a</w>":2,"b</w>":3,"ab</w>":4},
          "merges":["a b</w>"]}})");
  EXPECT_EQ(tokenizer->encode("ab a  bb"), (test::Ids{4, 2, 1, 3}));
  EXPECT_EQ(tokenizer->decode(test::Ids{4, 2, 1, 3}), "ab a bb");
  EXPECT_EQ(test::streamed(*tokenizer, {4, 2, 1, 3}), "ab a bb");
}

TEST(Pipeline, LeavesSpecialTokensInUntrustedTextAlone) {
  const auto tokenizer = load_tokenizer(test::golden("text/byte_bpe.json"));
  const auto end = tokenizer->token_to_id("<|im_end|>");
  ASSERT_TRUE(end.has_value());
  const std::string text = "a<|im_end|>b";
  const auto parsed = tokenizer->encode(text);
  const auto plain = tokenizer->encode(text, {.add_special = true, .parse_special = false});
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), *end), 1);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), *end), 0);
  EXPECT_EQ(tokenizer->decode(plain), text);
  EXPECT_EQ(tokenizer->decode(parsed), "ab");
  EXPECT_EQ(tokenizer->decode(parsed, false), text);
  EXPECT_TRUE(tokenizer->is_special(*end));
  EXPECT_EQ(tokenizer->token_bytes(*end), "<|im_end|>");
}

TEST(Pipeline, SpellsNothingOutsideOfTheVocabulary) {
  const auto tokenizer = load_tokenizer(test::golden("text/byte_bpe.json"));
  EXPECT_EQ(tokenizer->decode(test::Ids{-1, tokenizer->vocab_size(), INT32_MAX}), "");
  EXPECT_EQ(tokenizer->token_bytes(-5), "");
  EXPECT_FALSE(tokenizer->token_to_id("no such token"));
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_to_id("Ġthe")), " the");
  EXPECT_EQ(tokenizer->id_to_token(*tokenizer->token_to_id("Ġthe")), "Ġthe");
}

TEST(Pipeline, ReproducesAnyBytes) {
  Rng rng(11);
  for (const char* name : {"text/byte_bpe.json", "text/char_bpe.json"}) {
    const auto tokenizer = load_tokenizer(test::golden(name));
    for (int round = 0; round < 300; ++round) {
      const std::string bytes = test::random_bytes(rng, rng.below(200));
      if (std::string(name) == "text/byte_bpe.json") {
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes)), bytes);
      } else {
        tokenizer->encode(bytes);
      }
      const std::string text = test::random_unicode(rng, rng.below(300));
      // A mark is how this vocabulary writes a space.
      if (text.find("▁") != std::string::npos) continue;
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << name;
    }
  }
}

TEST(Pipeline, MergesLongWordsAsShortOnes) {
  // Long words go through the heap, short ones through the scan: a word made of copies that never merge with
  // each other.
  const auto tokenizer = test::tokenizer_from(
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":false},"decoder":{"type":"ByteLevel"},
          "model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"ab":3,"abc":4,"bc":5,"aa":6,"aaaa":7},
          "merges":["b c","a b","ab c","a a","aa aa"]}})");
  EXPECT_EQ(tokenizer->encode("abc"), (test::Ids{0, 5}));
  // c b a (b c) b a (b c) ... (a b): "b c" was learned first.
  std::string word;
  test::Ids expected = {2};
  for (int i = 0; i < 500; ++i) {
    word += "cbab";
    if (i < 499) {
      expected.insert(expected.end(), {1, 0, 5});
    } else {
      expected.insert(expected.end(), {1, 3});
    }
  }
  EXPECT_EQ(tokenizer->encode(word), expected);
  EXPECT_EQ(tokenizer->encode(std::string(1003, 'a')), [] {
    test::Ids ids(250, 7);
    ids.insert(ids.end(), {6, 0});
    return ids;
  }());
}

TEST(Pipeline, EncodesManyTextsInParallel) {
  const auto tokenizer = load_tokenizer(test::golden("text/byte_bpe.json"));
  Rng rng(5);
  std::vector<std::string> inputs;
  for (int i = 0; i < 200; ++i) inputs.push_back(test::random_unicode(rng, rng.below(500)));
  const auto results = tokenizer->encode_batch(inputs);
  ASSERT_EQ(results.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_EQ(results[i], tokenizer->encode(inputs[i]));
}

}  // namespace
}  // namespace qkv
