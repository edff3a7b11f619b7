// SentencePiece vocabularies trained on the spot: ids as the library's own, text back as it was.
#include <gmock/gmock.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "qkv/text/sentencepiece_proto.h"
#include "tests/text/text_support.h"

namespace qkv {
namespace {

std::string corpus() {
  Rng rng(3);
  const std::vector<std::string> words = {"the",  "quick", "brown", "fox",   "jumps",
                                          "over", "lazy",  "dog",   "naïve", "Führer",
                                          "тест", "工作",  "don't", "3.14",  "foo_bar()"};
  std::string text;
  for (int line = 0; line < 400; ++line) {
    for (int i = 0; i < 8; ++i) text += words[rng.below(words.size())] + (i < 7 ? " " : "\n");
  }
  return text;
}

// A model trained with the flags, in a directory of its own.
void train(const test::TemporaryDirectory& directory, const std::string& flags) {
  write_file(directory / "corpus.txt", corpus());
  const auto status =
      sentencepiece::SentencePieceTrainer::Train("--minloglevel=2 --input=" + directory / "corpus.txt" +
                                                 " --model_prefix=" + directory / "tokenizer" + " " + flags);
  ASSERT_TRUE(status.ok()) << status.ToString();
  std::filesystem::remove(directory / "corpus.txt");
}

constexpr char kLlamaFlags[] =
    "--model_type=bpe --vocab_size=400 --byte_fallback=true --normalization_rule_name=identity "
    "--remove_extra_whitespaces=false --allow_whitespace_only_pieces=true --split_digits=true "
    "--user_defined_symbols=<sep> --control_symbols=<|im_start|>,<|im_end|>";
constexpr char kUnigramFlags[] = "--model_type=unigram --vocab_size=150 --hard_vocab_limit=false";

const std::vector<std::string>& texts() {
  static const std::vector<std::string> list = {
      "",
      "the quick fox",
      " the  quick   fox ",
      "the\nquick\n\n fox",
      "\nthe",
      "naïve Führer тест",
      "工作 3.14",
      "a<sep>b <sep> c",
      "new wörds ünseen",
      "tabs\tand 🚀 emoji",
      "▁mark ▁ of",
      "   ",
      "the fox\n",
      "the quick brown fox jumps over the lazy dog the quick brown fox"};
  return list;
}

void expect_library_ids(const std::string& flags, std::string_view kind) {
  const test::TemporaryDirectory directory;
  train(directory, flags);
  const auto tokenizer = load_tokenizer(directory.path());
  EXPECT_EQ(tokenizer->kind(), kind);
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.Load(directory / "tokenizer.model").ok());
  Rng rng(8);
  auto inputs = texts();
  for (int i = 0; i < 200; ++i) inputs.push_back(test::random_unicode(rng, rng.below(200)));
  for (const auto& text : inputs) {
    std::vector<int> expected;
    ASSERT_TRUE(processor.Encode(text, &expected).ok());
    // Twice: the second time from the cache.
    for (int round = 0; round < 2; ++round) {
      EXPECT_EQ(tokenizer->encode(text, {.add_special = false, .parse_special = false}), expected)
          << "'" << text << "'";
    }
    std::string decoded;
    ASSERT_TRUE(processor.Decode(expected, &decoded).ok());
    EXPECT_EQ(tokenizer->decode(expected), decoded) << "'" << text << "'";
    EXPECT_EQ(test::streamed(*tokenizer, expected), decoded);
  }
}

TEST(SentencePiece, BpeGivesTheLibrarysIds) {
  expect_library_ids(kLlamaFlags, "sentencepiece-bpe");
}
TEST(SentencePiece, UnigramGivesTheLibrarysIds) {
  expect_library_ids(kUnigramFlags, "sentencepiece-unigram");
}
TEST(SentencePiece, WithoutDummyPrefixGivesTheLibrarysIds) {
  expect_library_ids(std::string(kLlamaFlags) + " --add_dummy_prefix=false", "sentencepiece-bpe");
}

// What tokenizer.json makes of the model, and what a model written from its contents does.
void expect_the_same_in_other_forms(const std::string& flags, bool compares_random) {
  const test::TemporaryDirectory directory;
  train(directory, flags);
  const auto tokenizer = load_tokenizer(directory.path());
  const auto from_json = test::tokenizer_from(tokenizer->to_json());
  const auto from_files = tokenizer_from_files(tokenizer->files(), "memory");
  EXPECT_EQ(from_files->kind(), tokenizer->kind());
  const SentencePieceProto proto =
      parse_sentencepiece_proto(read_file(directory / "tokenizer.model"), "model");
  const auto from_proto =
      tokenizer_from_files({{"tokenizer.model", serialize_sentencepiece_proto(proto)}}, "memory");
  Rng rng(18);
  auto inputs = texts();
  for (int i = 0; compares_random && i < 200; ++i)
    inputs.push_back(test::random_unicode(rng, rng.below(200)));
  for (const auto& text : inputs) {
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(from_files->encode(text), ids) << "'" << text << "'";
    EXPECT_EQ(from_proto->encode(text), ids) << "'" << text << "'";
    // A symbol of the user is a token of its own there, behind which a text begins anew.
    if (text.find("<sep>") != std::string::npos) continue;
    EXPECT_EQ(from_json->encode(text), ids) << "'" << text << "'";
    // The spelling of the unknown token differs.
    if (tokenizer->unk_id() && std::find(ids.begin(), ids.end(), *tokenizer->unk_id()) != ids.end()) continue;
    EXPECT_EQ(from_json->decode(ids), tokenizer->decode(ids)) << "'" << text << "'";
  }
}

TEST(SentencePiece, BpeIsTheSameInOtherForms) {
  expect_the_same_in_other_forms(kLlamaFlags, true);
  expect_the_same_in_other_forms(std::string(kLlamaFlags) + " --add_dummy_prefix=false", true);
}
TEST(SentencePiece, UnigramIsTheSameInOtherForms) {
  const std::string flags = std::string(kUnigramFlags) + " --normalization_rule_name=identity";
  expect_the_same_in_other_forms(flags, true);
  expect_the_same_in_other_forms(flags + " --remove_extra_whitespaces=false", true);
  expect_the_same_in_other_forms(
      "--model_type=unigram --vocab_size=330 --hard_vocab_limit=false --byte_fallback=true "
      "--normalization_rule_name=identity",
      true);
  // Hugging Face looks whole clusters up in the map of characters: the same but for odd ones.
  expect_the_same_in_other_forms(kUnigramFlags, false);
}
TEST(SentencePiece, CharactersAreTheSameInOtherForms) {
  expect_the_same_in_other_forms("--model_type=char --normalization_rule_name=identity --vocab_size=40",
                                 true);
}
TEST(SentencePiece, NamesWhatTokenizerJsonCannotExpress) {
  const test::TemporaryDirectory directory;
  train(directory, "--model_type=word --normalization_rule_name=identity --vocab_size=15");
  const auto words = load_tokenizer(directory.path());
  EXPECT_FALSE(words->has_json());
  EXPECT_NE(test::error_of([&] { words->to_json(); }).find("neighbouring unknown words"), std::string::npos);
  const test::TemporaryDirectory copy;
  words->save(copy.path());
  EXPECT_FALSE(std::filesystem::exists(copy / "tokenizer.json"));
  EXPECT_EQ(load_tokenizer(copy.path())->encode("the fox"), words->encode("the fox"));
}

TEST(SentencePiece, ReproducesAnyBytesByFallback) {
  const test::TemporaryDirectory directory;
  train(directory, kLlamaFlags);
  const auto tokenizer = load_tokenizer(directory.path());
  Rng rng(4);
  for (int round = 0; round < 200; ++round) {
    const std::string bytes = "x" + test::random_bytes(rng, rng.below(100));
    if (bytes.find("▁") != std::string::npos) continue;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes)), bytes);
  }
}

TEST(SentencePiece, FindsSpecialIdsAndControlPieces) {
  const test::TemporaryDirectory directory;
  train(directory, kLlamaFlags);
  write_file(directory / "tokenizer_config.json",
             R"({"add_bos_token": true, "add_eos_token": true, "eos_token": {"content": "</s>"},
                 "pad_token": "<pad>", "chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}],
                 "added_tokens_decoder": {"400": {"content": "<pad>", "special": true}}})");
  write_file(directory / "generation_config.json", R"({"eos_token_id": [2, 4]})");
  const auto tokenizer = load_tokenizer(directory.path());
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->unk_id(), 0);
  EXPECT_EQ(tokenizer->pad_id(), 400);
  EXPECT_EQ(tokenizer->vocab_size(), 401);
  EXPECT_EQ(tokenizer->chat_template(), "D");
  const auto start = tokenizer->token_to_id("<|im_start|>");
  const auto end = tokenizer->token_to_id("<|im_end|>");
  ASSERT_TRUE(start && end);
  EXPECT_TRUE(tokenizer->is_special(*start));
  EXPECT_EQ(tokenizer->stop_ids(), (std::vector<int32_t>{2, 4}));
  const auto ids = tokenizer->encode("<|im_start|>the fox<|im_end|>");
  EXPECT_EQ(ids.front(), 1);
  EXPECT_EQ(ids[1], *start);
  EXPECT_EQ(ids[ids.size() - 2], *end);
  EXPECT_EQ(ids.back(), 2);
  EXPECT_EQ(tokenizer->decode(ids), "the fox");
  const auto plain = tokenizer->encode("<|im_start|>", {.add_special = false, .parse_special = false});
  EXPECT_EQ(std::count(plain.begin(), plain.end(), *start), 0);

  const test::TemporaryDirectory copy;
  tokenizer->save(copy.path());
  const auto loaded = load_tokenizer(copy.path());
  EXPECT_EQ(loaded->encode("<|im_start|>the fox<pad>"), tokenizer->encode("<|im_start|>the fox<pad>"));
  EXPECT_EQ(loaded->stop_ids(), tokenizer->stop_ids());
  EXPECT_EQ(loaded->pad_id(), 400);
  EXPECT_EQ(loaded->chat_template(), "D");
}

// The library's tries would end the program.
TEST(SentencePiece, RefusesAPieceWithAZeroByte) {
  SentencePieceProto proto;
  proto.pieces = {{"<unk>", 0, PieceType::unknown}, {std::string("a\0b", 3)}};
  EXPECT_THAT(test::error_of([&] {
                tokenizer_from_files({{"tokenizer.model", serialize_sentencepiece_proto(proto)}}, "memory");
              }),
              testing::HasSubstr("piece 1: expected text without zero bytes"));
}

TEST(SentencePiece, PutsThePrefixOnlyAtTheStartIfNotLegacy) {
  const test::TemporaryDirectory directory;
  train(directory, kLlamaFlags);
  const auto legacy = load_tokenizer(directory.path());
  write_file(directory / "tokenizer_config.json", R"({"legacy": false})");
  const auto modern = load_tokenizer(directory.path());
  const std::string text = "the<|im_end|>fox";
  EXPECT_EQ(legacy->decode(legacy->encode(text), false), "<s> the<|im_end|> fox");
  EXPECT_EQ(modern->decode(modern->encode(text), false), "<s> the<|im_end|>fox");
}

TEST(SentencePiece, RefusesDamagedModels) {
  const test::TemporaryDirectory directory;
  train(directory, kLlamaFlags);
  const std::string model = read_file(directory / "tokenizer.model");
  int refused = 0;
  for (size_t size = 1; size < model.size(); size += 37) {
    write_file(directory / "tokenizer.model", model.substr(0, size));
    const std::string error = test::error_of([&] { load_tokenizer(directory.path()); });
    if (error != "(no error)") {
      ++refused;
      EXPECT_NE(error.find("tokenizer.model: "), std::string::npos) << error;
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace qkv
