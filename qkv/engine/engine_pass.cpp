// One forward pass over what the scheduler chose, and from its hidden states to logits.
#include <chrono>

#include "qkv/core/error.h"
#include "qkv/engine/engine_sequence.h"
#include "qkv/tensor/allocator.h"

namespace qkv {
namespace {

// Passes of so many tokens give their scratch memory back: the next one has another size, and blocks kept for
// every size would add up.
constexpr size_t kLargePass = 64;

}  // namespace

void Engine::run(const std::vector<Part>& parts) {
  const auto started = std::chrono::steady_clock::now();
  Pass pass;
  pass.compute_type = options_.compute_type;
  pass.activations = options_.activations;
  pass.sequences.offsets = {0};
  std::vector<int32_t> tokens;
  std::vector<int64_t> rows;  // whose logits choose a token, of one sequence after the other
  std::vector<Sequence*> choosing;
  int64_t prefill = 0, decode = 0;
  for (const auto& [sequence, n] : parts) {
    (sequence->is_decoding() ? decode : prefill) += n;
    const int64_t pending = sequence->pending();
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = sequence->state.length + i;
      tokens.push_back(i < pending ? sequence->tokens[static_cast<size_t>(position)]
                                   : sequence->drafted[static_cast<size_t>(i - pending)]);
      pass.positions.push_back(static_cast<int32_t>(position));
    }
    const auto end = static_cast<int64_t>(tokens.size());
    pass.sequences.offsets.push_back(end);
    pass.states.push_back(&sequence->state);
    if (n >= pending) {
      for (int64_t row = end - 1 - (n - pending); row < end; ++row) rows.push_back(row);
      choosing.push_back(sequence);
    }
  }

  const Tensor hidden = model_.forward(tokens, pass);  // (T, C)
  for (size_t i = 0; i < parts.size(); ++i) {
    Sequence& sequence = *parts[i].sequence;
    if (sequence.request.prompt_logprobs && sequence.generated() == 0) {
      score_prompt(sequence, hidden, pass.sequences.offsets[i], parts[i].tokens);
    }
  }
  int64_t generated = 0;
  if (!choosing.empty()) {
    Tensor logits = model_.logits(ops::select_rows(hidden, rows), options_.activations);  // (rows, V)
    float* row = logits.data<float>();
    for (Sequence* sequence : choosing) {
      const auto count = static_cast<int64_t>(sequence->drafted.size()) + 1;
      const bool answering = sequence->generated() > 0;
      const int64_t chosen = choose(*sequence, row, logits.cols());
      if (answering) generated += chosen;
      row += count * logits.cols();
    }
  }

  if (tokens.size() >= kLargePass) release_cached_memory();

  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  const double share = static_cast<double>(decode) / static_cast<double>(decode + prefill);
  stats_.prefill_tokens += prefill;
  stats_.decode_tokens += generated;
  stats_.prefill_seconds += seconds * (1 - share);
  stats_.decode_seconds += seconds * share;
}

void Engine::score_prompt(Sequence& sequence, const Tensor& hidden, int64_t first_row, int64_t rows) {
  constexpr int64_t kRows = 32;  // of logits at a time: a vocabulary is wide
  const int64_t first_position = sequence.state.length - rows;
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int64_t end = std::min(rows, begin + kRows);
    const Tensor logits =
        model_.logits(hidden.row_view(first_row + begin, first_row + end), options_.activations);
    const auto vocabulary = static_cast<size_t>(logits.cols());
    for (int64_t row = begin; row < end; ++row) {
      const auto next = static_cast<size_t>(first_position + row + 1);
      if (next >= sequence.request.prompt.size()) return;
      const float* values = logits.data<float>() + static_cast<size_t>(row - begin) * vocabulary;
      sequence.prompt_logprobs.push_back(log_probability({values, vocabulary}, sequence.tokens[next]));
    }
  }
}

}  // namespace qkv
