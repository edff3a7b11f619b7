// Log-likelihoods of texts under a model: what perplexity, multiple choice and last-word prediction are made
// of. Conventions are lm-evaluation-harness's (Gao et al., EleutherAI): how a continuation is tokenized,
// truncated and judged.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/models/model.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct Continuation {
  std::vector<int32_t> tokens;  // context, then continuation; at least one of each
  int64_t scored = 0;           // how many of the last tokens are the continuation
};

struct ContinuationScore {
  double log_likelihood = 0;  // natural log, summed over the continuation
  bool greedy = true;         // every continuation token was the model's first choice
};

// Tokens of context + continuation. The pair is tokenized as one text; spaces at the end of the context move
// to the continuation, so that the boundary falls where the tokenizer puts it. `add_special`: with the
// vocabulary's prefix (BOS). An empty context becomes the BOS (or EOS) token. Error if the continuation has
// no token, or there is nothing to begin with.
Continuation encode_continuation(const Tokenizer& tokenizer, std::string context, std::string continuation,
                                 bool add_special);

struct TokenScore {
  double log_prob = 0;
  bool greedy = false;  // the target is the row's first choice
};
// hidden (R, C): final hidden states; targets (R). Logits exist for a bounded number of rows at a time; sums
// are in double.
std::vector<TokenScore> score_rows(const Model& model, const Tensor& hidden,
                                   const std::vector<int32_t>& targets);

struct ScoringOptions {
  DType compute_type = DType::f32;
  int64_t batch_tokens = 2048;  // packed into one pass, whole sequences; a longer one gets a pass of its own
  int64_t max_context = 0;      // longer sequences lose tokens from the left; 0: the model's own
};

// One score per item, in order. Sequences are packed into passes by length; logits exist only for scored
// rows.
std::vector<ContinuationScore> score_continuations(const Model& model, const std::vector<Continuation>& items,
                                                   const ScoringOptions& options = {},
                                                   const std::function<void(int64_t done)>& progress = {});

// Mean and its standard error, (n - 1) in the variance; the error is 0 for fewer than two values.
struct MeanEstimate {
  double mean = 0, standard_error = 0;
};
MeanEstimate estimate_mean(const std::vector<double>& values);

}  // namespace qkv
