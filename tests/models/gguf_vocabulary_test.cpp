// Real vocabularies in GGUF files against the token ids that llama.cpp's tests hold for them, and real
// vocabularies of other forms through GGUF. Skipped without the data.
#include "qkv/text/gguf_vocabulary.h"

#include <sstream>

#include "qkv/formats/checkpoint.h"
#include "tests/text/text_support.h"

namespace qkv {
namespace {

constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";

std::unique_ptr<Tokenizer> load_gguf(const std::string& path) {
  return tokenizer_from_gguf(open_checkpoint(path)->metadata());
}

void expect_vectors(const Tokenizer& tokenizer, const std::string& name) {
  const std::string input = read_file(test::shared("data/vocab/ggml-vocab-" + name + ".gguf.inp"));
  std::istringstream output(read_file(test::shared("data/vocab/ggml-vocab-" + name + ".gguf.out")));
  int compared = 0;
  size_t begin = 0;
  for (std::string line; std::getline(output, line); ++compared) {
    const size_t end = input.find(kSeparator, begin);
    const std::string text = input.substr(begin, end == std::string::npos ? end : end - begin);
    std::istringstream numbers(line);
    test::Ids expected;
    for (int32_t id; numbers >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false, .parse_special = false}), expected)
        << name << ": '" << text << "'";
    if (tokenizer.kind() != "wordpiece") {
      EXPECT_EQ(tokenizer.decode(expected), text) << name;
    }
    if (end == std::string::npos) break;
    begin = end + kSeparator.size();
  }
  EXPECT_GE(compared, 40);
}

class RealGgufVocabulary : public testing::TestWithParam<const char*> {};

TEST_P(RealGgufVocabulary, GivesLlamaCppsIds) {
  const std::string name = GetParam();
  const std::string path = test::shared("data/vocab/ggml-vocab-" + name + ".gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const auto tokenizer = load_gguf(path);
  expect_vectors(*tokenizer, name);
  // Written as GGUF again, and as Hugging Face's files.
  Metadata metadata("written.gguf");
  write_gguf_vocabulary(*tokenizer, tokenizer->vocab_size() + 100, metadata);
  expect_vectors(*tokenizer_from_gguf(metadata), name);
  const test::TemporaryDirectory directory;
  tokenizer->save(directory.path());
  const auto saved = load_tokenizer(directory.path());
  EXPECT_NE(saved->kind().find("bpe") != std::string::npos, name == "bert-bge");
  expect_vectors(*saved, name);
  EXPECT_EQ(saved->prefix_ids(), tokenizer->prefix_ids());
  EXPECT_EQ(saved->suffix_ids(), tokenizer->suffix_ids());
  EXPECT_EQ(saved->stop_ids(), tokenizer->stop_ids());
}

INSTANTIATE_TEST_SUITE_P(Files, RealGgufVocabulary,
                         testing::Values("bert-bge", "falcon", "gpt-2", "llama-spm", "phi-3", "starcoder"));

TEST(GgufVocabularies, OtherFormsGiveTheSameIdsThroughGguf) {
  const std::string text_path = test::shared("data/text/calibration_datav3.txt");
  if (!std::filesystem::exists(text_path)) GTEST_SKIP() << "no " << text_path;
  const std::string text = read_file(text_path).substr(0, 150000);
  const std::pair<const char*, const char*> cases[] = {
      {"gpt2", "gpt-2"},
      {"llama3", "llama-bpe"},
      {"qwen", "qwen2"},
      {"gpt-neox-20b", "olmo"},
      {"llama2", "default"},
      {"mistral/tokenizer.model.v1", "default"},
      {"all-MiniLM-L6-v2", nullptr},
      {"mistral/mistral_instruct_tokenizer_240323.model.v3", "default"}};
  for (const auto& [name, pre] : cases) {
    const auto tokenizer = load_tokenizer(test::shared(std::string("data/tokenizers/") + name));
    Metadata metadata("written.gguf");
    write_gguf_vocabulary(*tokenizer, tokenizer->vocab_size(), metadata);
    if (pre != nullptr) {
      EXPECT_EQ(metadata.string("tokenizer.ggml.pre"), pre) << name;
    }
    const auto read = tokenizer_from_gguf(metadata);
    EXPECT_EQ(read->encode(text), tokenizer->encode(text)) << name;
    EXPECT_EQ(read->stop_ids(), tokenizer->stop_ids()) << name;
    EXPECT_EQ(read->vocab_size(), tokenizer->vocab_size()) << name;
  }
}

TEST(GgufVocabularies, SentencePieceComesBackFromTokenizerJson) {
  const std::string path = test::shared("data/tokenizers/llama2");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const std::string text = read_file(test::shared("data/text/calibration_datav3.txt")).substr(0, 150000);
  const auto original = load_tokenizer(path);
  const auto json = test::tokenizer_from(original->to_json());
  EXPECT_EQ(json->kind(), "bpe");
  EXPECT_EQ(json->encode(text), original->encode(text));
  Metadata metadata("written.gguf");
  write_gguf_vocabulary(*json, json->vocab_size(), metadata);
  EXPECT_EQ(metadata.string("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(tokenizer_from_gguf(metadata)->encode(text), original->encode(text));
}

}  // namespace
}  // namespace qkv
