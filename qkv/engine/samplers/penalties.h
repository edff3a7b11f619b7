// What changes logits because of the tokens before them. All work in place; ids outside the logits are
// ignored.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qkv {

// For every token of `window`: its logit is divided (if positive) or multiplied by `repetition` (Keskar et
// al., arXiv 1909.05858), then `presence` and `frequency` times its count are taken off.
void penalize_repetition(std::span<float> logits, std::span<const int32_t> window, float repetition,
                         float presence, float frequency);

// Forbids every token that would repeat the last n - 1 tokens' earlier continuation (Paulus et al., arXiv
// 1705.04304).
void forbid_repeated_ngrams(std::span<float> logits, std::span<const int32_t> history, int32_t n);

// Forbids the last token of every sequence whose other tokens end the history.
void forbid_words(std::span<float> logits, std::span<const int32_t> history,
                  const std::vector<std::vector<int32_t>>& words);

struct DryOptions {
  float multiplier = 0, base = 1.75f;
  int32_t allowed_length = 2;
};
// "Don't repeat yourself": where the end of the history repeats an earlier passage of m >= allowed_length
// tokens, the token that followed it loses multiplier * base^(m - allowed_length), for the longest such m. No
// passage reaches across a token of `breakers` (ascending).
void penalize_continuations(std::span<float> logits, std::span<const int32_t> history,
                            const DryOptions& options, std::span<const int32_t> breakers);

}  // namespace qkv
