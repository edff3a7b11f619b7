// Vocabularies of real models against token ids that llama.cpp's tests hold for them. Skipped without the
// data.
#include <sentencepiece_processor.h>

#include <sstream>

#include "tests/text/text_support.h"

namespace qkv {
namespace {

constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";

bool present(const std::string& path) {
  return std::filesystem::exists(path);
}

void expect_vectors(const std::string& tokenizer_path, const std::string& vectors) {
  const std::string input_path = test::shared("data/vocab/ggml-vocab-" + vectors + ".gguf.inp");
  const std::string path = test::shared("data/tokenizers/" + tokenizer_path);
  if (!present(input_path) || !present(path)) GTEST_SKIP() << "no " << path << " or " << input_path;
  const auto tokenizer = load_tokenizer(path);
  const std::string input = read_file(input_path);
  std::istringstream output(read_file(test::shared("data/vocab/ggml-vocab-" + vectors + ".gguf.out")));
  int compared = 0;
  size_t begin = 0;
  for (std::string line; std::getline(output, line); ++compared) {
    const size_t end = input.find(kSeparator, begin);
    const std::string text = input.substr(begin, end == std::string::npos ? end : end - begin);
    std::istringstream numbers(line);
    test::Ids expected;
    for (int32_t id; numbers >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer->encode(text, {.add_special = false, .parse_special = false}), expected)
        << "'" << text << "'";
    if (tokenizer->kind() != "wordpiece") {
      EXPECT_EQ(tokenizer->decode(expected), text);
    }
    if (end == std::string::npos) break;
    begin = end + kSeparator.size();
  }
  EXPECT_GE(compared, 40);
}

TEST(RealVocabulary, Gpt2Files) {
  expect_vectors("gpt2", "gpt-2");
}
TEST(RealVocabulary, Llama3Ranks) {
  expect_vectors("llama3", "llama-bpe");
}
TEST(RealVocabulary, QwenRanks) {
  expect_vectors("qwen", "qwen2");
}
TEST(RealVocabulary, Llama2SentencePiece) {
  expect_vectors("llama2", "llama-spm");
}
TEST(RealVocabulary, BertTokenizerJson) {
  expect_vectors("all-MiniLM-L6-v2/tokenizer.json", "bert-bge");
}
TEST(RealVocabulary, BertWordList) {
  expect_vectors("all-MiniLM-L6-v2/vocab.txt", "bert-bge");
}

TEST(RealVocabulary, ReproducesANovelAndSurvivesSaving) {
  const std::string text_path = test::shared("data/text/war-and-peace.txt");
  if (!present(text_path)) GTEST_SKIP() << "no " << text_path;
  const std::string text = read_file(text_path).substr(0, 400000);
  for (const char* name : {"gpt2", "llama3", "qwen", "gpt-neox-20b", "llama2", "mistral"}) {
    const auto tokenizer = load_tokenizer(test::shared(std::string("data/tokenizers/") + name));
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(ids), text) << name;
    const test::TemporaryDirectory directory;
    tokenizer->save(directory.path());
    const auto loaded = load_tokenizer(directory.path());
    EXPECT_EQ(loaded->encode(text), ids) << name;
    EXPECT_EQ(loaded->vocab_size(), tokenizer->vocab_size()) << name;
    EXPECT_EQ(loaded->bos_id(), tokenizer->bos_id()) << name;
    EXPECT_EQ(loaded->eos_id(), tokenizer->eos_id()) << name;
    EXPECT_EQ(loaded->stop_ids(), tokenizer->stop_ids()) << name;
    EXPECT_EQ(loaded->prefix_ids(), tokenizer->prefix_ids()) << name;
  }
}

TEST(RealVocabulary, KnowsTheSpecialTokensOfRankFiles) {
  const std::string path = test::shared("data/tokenizers/llama3");
  if (!present(path)) GTEST_SKIP() << "no " << path;
  const auto llama = load_tokenizer(path);
  EXPECT_EQ(llama->vocab_size(), 128256);
  EXPECT_EQ(llama->bos_id(), 128000);
  EXPECT_EQ(llama->eos_id(), 128001);
  EXPECT_EQ(llama->stop_ids(), (std::vector<int32_t>{128001, 128008, 128009}));
  EXPECT_EQ(llama->encode("<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"),
            (test::Ids{128000, 128006, 882, 128007, 271, 13347, 128009}));
  EXPECT_EQ(llama->id_to_token(128255), "<|reserved_special_token_247|>");
  const auto qwen = load_tokenizer(test::shared("data/tokenizers/qwen"));
  EXPECT_EQ(qwen->token_to_id("<|im_start|>"), 151644);
  EXPECT_FALSE(qwen->bos_id());
}

TEST(RealVocabulary, SentencePieceWordByWordEqualsTheWhole) {
  const std::string text_path = test::shared("data/text/calibration_datav3.txt");
  if (!present(text_path)) GTEST_SKIP() << "no " << text_path;
  const std::string text = read_file(text_path).substr(0, 200000);
  for (const char* name : {"llama2/tokenizer.model", "mistral/tokenizer.model.v1"}) {
    const std::string path = test::shared(std::string("data/tokenizers/") + name);
    const auto tokenizer = load_tokenizer(path);
    sentencepiece::SentencePieceProcessor processor;
    ASSERT_TRUE(processor.Load(path).ok());
    std::vector<int> expected;
    const std::string valid = replace_invalid_utf8(text);
    ASSERT_TRUE(processor.Encode(valid, &expected).ok());
    EXPECT_EQ(tokenizer->encode(valid, {.add_special = false, .parse_special = false}), expected) << name;
  }
}

}  // namespace
}  // namespace qkv
