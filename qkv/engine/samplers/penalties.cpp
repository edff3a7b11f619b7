#include "qkv/engine/samplers/penalties.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace qkv {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

bool has(std::span<const float> logits, int32_t id) {
  return id >= 0 && static_cast<size_t>(id) < logits.size();
}

}  // namespace

void penalize_repetition(std::span<float> logits, std::span<const int32_t> window, float repetition,
                         float presence, float frequency) {
  std::vector<int32_t> sorted(window.begin(), window.end());
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i;
    while (end < sorted.size() && sorted[end] == sorted[i]) ++end;
    if (has(logits, sorted[i])) {
      float& logit = logits[static_cast<size_t>(sorted[i])];
      logit = logit > 0 ? logit / repetition : logit * repetition;
      logit -= presence + frequency * static_cast<float>(end - i);
    }
    i = end;
  }
}

void forbid_repeated_ngrams(std::span<float> logits, std::span<const int32_t> history, int32_t n) {
  const auto before = static_cast<size_t>(n) - 1;
  if (history.size() < static_cast<size_t>(n)) return;
  const auto end = history.last(before);
  for (size_t i = 0; i + before < history.size(); ++i) {
    const int32_t next = history[i + before];
    if (has(logits, next) &&
        std::equal(end.begin(), end.end(), history.begin() + static_cast<std::ptrdiff_t>(i))) {
      logits[static_cast<size_t>(next)] = kForbidden;
    }
  }
}

void forbid_words(std::span<float> logits, std::span<const int32_t> history,
                  const std::vector<std::vector<int32_t>>& words) {
  for (const auto& word : words) {
    if (word.empty() || !has(logits, word.back()) || history.size() < word.size() - 1) continue;
    if (std::equal(word.begin(), word.end() - 1,
                   history.end() - static_cast<std::ptrdiff_t>(word.size() - 1))) {
      logits[static_cast<size_t>(word.back())] = kForbidden;
    }
  }
}

void penalize_continuations(std::span<float> logits, std::span<const int32_t> history,
                            const DryOptions& options, std::span<const int32_t> breakers) {
  // Reversed, a passage that the history's end repeats is a common prefix: Z algorithm (Gusfield 1997),
  // linear time.
  const size_t n = history.size();
  const auto at = [&](size_t i) { return history[n - 1 - i]; };
  size_t reach = 0;  // tokens at the end without a breaker
  while (reach < n && !std::binary_search(breakers.begin(), breakers.end(), at(reach))) ++reach;
  if (reach < static_cast<size_t>(options.allowed_length)) return;
  std::unordered_map<int32_t, size_t> longest;  // by the token that followed
  std::vector<size_t> z(n, 0);
  for (size_t i = 1, left = 0, right = 0; i < n; ++i) {
    if (i < right) z[i] = std::min(right - i, z[i - left]);
    while (i + z[i] < n && at(z[i]) == at(i + z[i])) ++z[i];
    if (i + z[i] > right) {
      left = i;
      right = i + z[i];
    }
    const size_t length = std::min(z[i], reach);
    if (length >= static_cast<size_t>(options.allowed_length)) {
      size_t& best = longest[at(i - 1)];
      best = std::max(best, length);
    }
  }
  for (const auto& [id, length] : longest) {
    if (!has(logits, id)) continue;
    const auto excess = static_cast<double>(length - static_cast<size_t>(options.allowed_length));
    // Beyond what a float holds a longer repetition cannot be any less likely.
    const double penalty =
        std::min(options.multiplier * std::pow(static_cast<double>(options.base), excess), 1e30);
    logits[static_cast<size_t>(id)] -= static_cast<float>(penalty);
  }
}

}  // namespace qkv
