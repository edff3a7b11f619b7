// Training: what is merged, the same result for any number of threads, and refusals.
#include "qkv/text/bpe_trainer.h"

#include <map>

#include "qkv/core/parallel.h"
#include "tests/text/text_support.h"

namespace qkv {
namespace {

DocumentSource documents(std::vector<std::string> texts) {
  auto next = std::make_shared<size_t>(0);
  return [texts = std::move(texts), next](std::string& document) {
    if (*next == texts.size()) return false;
    document = texts[(*next)++];
    return true;
  };
}

std::string sample_text(uint64_t seed, size_t words) {
  Rng rng(seed);
  std::string text;
  for (size_t i = 0; i < words; ++i) {
    // Short words of few letters, frequent ones more often: pairs tie a lot.
    const uint64_t word = rng.below(rng.below(200) + 1);
    for (uint64_t rest = word + 7; rest > 0; rest /= 5) text += "aeiné"[rest % 4];
    text += i % 17 == 16 ? "\n" : " ";
    if (i % 50 == 0) text += "Größe ";
  }
  return text;
}

BpeTrainerOptions small(int32_t vocab_size) {
  BpeTrainerOptions options;
  options.vocab_size = vocab_size;
  options.special_tokens = {"<|endoftext|>"};
  return options;
}

TEST(BpeTrainer, MergesTheMostFrequentPairFirst) {
  // The example of Sennrich et al. 2016: low, lower, newest, widest. "es" and "st" and "t</w>" tie there;
  // here "es" wins over "st" by the lower ids ('e' < 's').
  std::string text;
  const auto repeat = [&](const char* word, int count) {
    for (int i = 0; i < count; ++i) text += word;
  };
  repeat(" low", 5);
  repeat(" lower", 2);
  repeat(" newest", 6);
  repeat(" widest", 3);
  auto options = small(256 + 1 + 5);
  const auto tokenizer = train_bpe(documents({text}), options);
  const auto token = [&](int32_t id) { return tokenizer->id_to_token(id); };
  EXPECT_EQ(token(256), "es");
  EXPECT_EQ(token(257), "est");
  EXPECT_EQ(token(258), "lo");
  EXPECT_EQ(token(259), "Ġlo");
  EXPECT_EQ(token(260), "Ġlow");
  EXPECT_EQ(token(261), "<|endoftext|>");
  EXPECT_EQ(tokenizer->eos_id(), 261);
  EXPECT_EQ(tokenizer->vocab_size(), 262);
}

// The definition, word by word, without any bookkeeping.
std::vector<std::string> train_naively(const std::vector<std::string>& words, size_t merges) {
  std::vector<std::vector<std::string>> split;
  for (const auto& word : words) {
    split.emplace_back();
    for (const char c : word) split.back().emplace_back(1, c);
  }
  std::vector<std::string> learned;
  while (learned.size() < merges) {
    std::map<std::pair<std::string, std::string>, int> counts;
    for (const auto& word : split) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    const auto id = [&](const std::string& token) {
      const auto at = std::find(learned.begin(), learned.end(), token);
      return at == learned.end() ? static_cast<int>(static_cast<uint8_t>(token[0]))
                                 : 256 + static_cast<int>(at - learned.begin());
    };
    std::pair<std::string, std::string> best;
    int most = 1;
    for (const auto& [pair, count] : counts) {
      const auto ids = [&](const std::pair<std::string, std::string>& p) {
        return std::pair(id(p.first), id(p.second));
      };
      if (count > most || (count == most && most > 1 && ids(pair) < ids(best))) {
        best = pair;
        most = count;
      }
    }
    if (most < 2) break;
    const std::string merged = best.first + best.second;
    for (auto& word : split) {
      std::vector<std::string> out;
      for (size_t i = 0; i < word.size(); ++i) {
        if (i + 1 < word.size() && word[i] == best.first && word[i + 1] == best.second) {
          out.push_back(merged);
          ++i;
        } else {
          out.push_back(word[i]);
        }
      }
      word = out;
    }
    if (std::find(learned.begin(), learned.end(), merged) == learned.end()) learned.push_back(merged);
  }
  return learned;
}

TEST(BpeTrainer, AgreesWithTheDefinition) {
  Rng rng(21);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> words;
    std::string text;
    for (int i = 0; i < 60; ++i) {
      std::string word;
      for (uint64_t left = 1 + rng.below(9); left > 0; --left) word += static_cast<char>('a' + rng.below(3));
      words.push_back(word);
      text += (i > 0 ? "," : "") + word;
    }
    auto options = small(256 + 1 + 40);
    options.pattern = "[a-z]+";
    const auto tokenizer = train_bpe(documents({text}), options);
    const auto expected = train_naively(words, 40);
    std::vector<std::string> learned;
    for (int32_t id = 256; id < tokenizer->vocab_size() - 1; ++id)
      learned.push_back(tokenizer->token_bytes(id));
    EXPECT_EQ(learned, expected) << "round " << round;
  }
}

TEST(BpeTrainer, GivesTheSameVocabularyForAnyNumberOfThreads) {
  const test::TemporaryDirectory directory;
  write_file(directory / "a.txt", sample_text(1, 700000));  // more than one chunk
  write_file(directory / "b.txt", sample_text(2, 3000));
  const std::vector<std::string> paths = {directory / "a.txt", directory / "b.txt"};
  ASSERT_GT(std::filesystem::file_size(paths[0]), size_t{2} << 20);
  const int before = num_threads();
  std::optional<std::string> first;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    BpeTrainingReport report;
    const auto tokenizer = train_bpe(paths, small(600), &report);
    EXPECT_GT(report.words, 400000);
    if (!first) first = tokenizer->to_json();
    EXPECT_EQ(tokenizer->to_json(), first) << threads << " threads";
  }
  set_num_threads(before);
}

TEST(BpeTrainer, EncodesTheSameAfterSavingAndLoading) {
  Rng rng(6);
  for (const char* pattern : {"gpt2", "llama3", "qwen2", "o200k", "[^ ]+| +"}) {
    auto options = small(400);
    options.pattern = pattern;
    options.special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    options.bos_token = "<|im_start|>";
    options.pad_token = "<|endoftext|>";
    const auto tokenizer = train_bpe(documents({sample_text(5, 5000), sample_text(6, 100)}), options);
    EXPECT_EQ(tokenizer->vocab_size(), 400);
    const test::TemporaryDirectory directory;
    tokenizer->save(directory.path());
    const auto loaded = load_tokenizer(directory.path());
    EXPECT_EQ(loaded->to_json(), tokenizer->to_json());
    EXPECT_EQ(loaded->bos_id(), tokenizer->token_to_id("<|im_start|>"));
    EXPECT_EQ(loaded->eos_id(), tokenizer->token_to_id("<|endoftext|>"));
    EXPECT_EQ(loaded->pad_id(), loaded->eos_id());
    for (int round = 0; round < 100; ++round) {
      const std::string text =
          round % 2 ? sample_text(rng.next_u64(), 30) + "<|im_end|>" : test::random_unicode(rng, 100);
      const auto ids = tokenizer->encode(text);
      EXPECT_EQ(loaded->encode(text), ids);
      EXPECT_EQ(tokenizer->decode(ids, false), text) << pattern;
    }
    const std::string bytes = test::random_bytes(rng, 500);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes)), bytes);
  }
}

TEST(BpeTrainer, CutsSpecialTokensOutOfTheCorpus) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "ab<|endoftext|>";
  const auto tokenizer = train_bpe(documents({text}), small(262));
  EXPECT_TRUE(tokenizer->token_to_id("ab"));
  EXPECT_FALSE(tokenizer->token_to_id("end"));
}

TEST(BpeTrainer, KeepsToTheLongestTokenAllowed) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "abcdefgh ";
  auto options = small(300);
  options.max_token_length = 3;
  const auto tokenizer = train_bpe(documents({text}), options);
  for (int32_t id = 0; id + 1 < tokenizer->vocab_size(); ++id)
    EXPECT_LE(tokenizer->token_bytes(id).size(), 3u);
}

TEST(BpeTrainer, ReturnsASmallerVocabularyForASmallCorpus) {
  BpeTrainingReport report;
  const auto tokenizer = train_bpe(documents({"aa aa aa"}), small(5000), &report);
  EXPECT_FALSE(report.reached_vocab_size);
  EXPECT_LT(tokenizer->vocab_size(), 300);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("aa b")), "aa b");
}

TEST(BpeTrainer, RefusesWhatCannotBe) {
  const auto error = [](BpeTrainerOptions options, std::vector<std::string> texts) {
    return test::error_of([&] { train_bpe(documents(std::move(texts)), options); });
  };
  EXPECT_NE(error(small(300), {}).find("expected text to learn from, found none"), std::string::npos);
  EXPECT_NE(error(small(300), {"", ""}).find("found none"), std::string::npos);
  EXPECT_NE(error(small(256), {"a"}).find("expected from 257"), std::string::npos);
  EXPECT_NE(error(small(300), {"fine", "ab\xFFz"})
                .find("document 1: expected UTF-8 text, found an invalid byte at offset 2"),
            std::string::npos);
  auto options = small(300);
  options.pattern = "(";
  EXPECT_NE(error(options, {"a"}).find("does not compile"), std::string::npos);
  options = small(300);
  options.special_tokens = {"<a>", "<a>"};
  EXPECT_NE(error(options, {"a"}).find("listed twice"), std::string::npos);
  options = small(300);
  options.bos_token = "<s>";
  EXPECT_NE(error(options, {"a"}).find("bos_token"), std::string::npos);
  options = small(300);
  options.min_frequency = 0;
  EXPECT_NE(error(options, {"a"}).find("min_frequency"), std::string::npos);
}

TEST(BpeTrainer, NamesTheFileAndOffsetOfInvalidText) {
  const test::TemporaryDirectory directory;
  std::string text = sample_text(9, 400000);
  const size_t offset = text.find(' ', text.size() - 2000) + 1;
  text.insert(offset, "\xC3\x28");
  write_file(directory / "good.txt", "good text\n");
  write_file(directory / "bad.txt", text);
  const std::vector<std::string> paths = {directory / "good.txt", directory / "bad.txt"};
  const std::string error = test::error_of([&] { train_bpe(paths, small(300)); });
  EXPECT_NE(
      error.find("bad.txt: expected UTF-8 text, found an invalid byte at offset " + std::to_string(offset)),
      std::string::npos)
      << error;
}

}  // namespace
}  // namespace qkv
