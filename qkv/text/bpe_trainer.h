// Learns a byte-level BPE vocabulary from text (Sennrich et al. 2016, on bytes as Radford et al. 2019).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qkv/text/tokenizer.h"
#include "qkv/text/word_counts.h"

namespace qkv {

struct BpeTrainerOptions {
  // Bytes, merges and special tokens together; at least 256 + special tokens.
  int32_t vocab_size = 32000;
  // Pairs that occur less often are not merged.
  int64_t min_frequency = 2;
  // Get the last ids. Their spelling is cut out of the corpus.
  std::vector<std::string> special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  // Each is one of special_tokens, or empty for none. eos_token defaults to the first special token.
  std::string bos_token, pad_token;
  std::optional<std::string> eos_token;
  // "gpt2", "llama3", "qwen2", ... (patterns.h) or a regular expression.
  std::string pattern = "gpt2";
  // Longest token in bytes; 0: no limit.
  int32_t max_token_length = 0;
};

struct BpeTrainingReport {
  int64_t words = 0;  // in the corpus
  int64_t distinct_words = 0;
  int64_t merges = 0;
  bool reached_vocab_size = false;
  double count_seconds = 0, merge_seconds = 0;
};

// The result is the same for any number of threads: of equally frequent pairs the one with the lower ids is
// merged. A corpus too small for vocab_size gives a smaller vocabulary and a warning. Throws Error for
// impossible options, an empty corpus, and text that is not UTF-8 (naming file and byte offset).
std::unique_ptr<Tokenizer> train_bpe(std::span<const std::string> paths, const BpeTrainerOptions& options,
                                     BpeTrainingReport* report = nullptr);
std::unique_ptr<Tokenizer> train_bpe(const DocumentSource& next_document, const BpeTrainerOptions& options,
                                     BpeTrainingReport* report = nullptr);

}  // namespace qkv
