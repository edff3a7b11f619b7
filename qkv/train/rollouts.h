// Answers sampled from the model that is being trained, by the in-process engine over the same weights: no
// second copy, no server; an adapter takes effect unmerged. Training's own forward then gives their
// log-probabilities again, because an engine that works token by token rounds differently; how much, is a
// metric.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/engine/engine.h"
#include "qkv/models/model.h"
#include "qkv/train/answers.h"
#include "qkv/train/metrics.h"

namespace qkv {

struct RolloutOptions {
  int64_t max_new_tokens = 64;
  double temperature = 1;  // 0: the likeliest token; losses see log-probabilities at the same temperature
  double top_p = 1;
  int64_t top_k = 0;
  uint64_t seed = 0;
  DType compute_type = DType::f32;
  int64_t at_a_time = 32;         // answers generated together
  std::vector<int32_t> stop_ids;  // beside the tokenizer's own
  std::vector<std::string> stop;  // texts
};

struct Rollout {
  size_t prompt = 0;                           // its index among those asked
  std::vector<int32_t> prompt_tokens, tokens;  // the answer's, with the one that ended it
  std::string text;                            // without it
  bool ended = false;                          // by itself, not cut off by the limit
  // One number per token of the answer. `sampled` are the engine's, at temperature 1; `log_probs` and
  // `reference` training's, at the rollout's temperature; the rest is PPO's.
  std::vector<float> sampled, log_probs, reference, values, advantages, returns;
  double score = 0;      // the weighted sum of its rewards
  double advantage = 0;  // of the whole answer
  std::vector<std::pair<int64_t, double>>
      step_scores;  // process rewards: index of a step's last token, reward
};

// `per_prompt` answers to each prompt, one prompt after the other. Which tokens are drawn is a function of
// the weights, the options' seed, `stream` and the answer's place, so that a resumed run draws the same.
std::vector<Rollout> sample_rollouts(const Model& model, const Tokenizer& tokenizer,
                                     const std::vector<const std::vector<int32_t>*>& prompts,
                                     int64_t per_prompt, const RolloutOptions& options, uint64_t stream);

// Prompts and answers, packed; what counts are the answers' tokens.
Batch rollout_batch(std::span<const Rollout> rollouts);

// Hidden states (N, C) from which an answer's tokens are predicted, with those tokens.
struct AnswerRows {
  Tensor hidden;
  CountedRows counted;
};
AnswerRows answer_rows(const Model& model, const Batch& batch, const Pass& pass);
// (N) f32. Error if the model caps its logits and the temperature is not 1.
Tensor log_probs_of(const Model& model, const AnswerRows& rows, double temperature = 1);
// The entropy of every row's distribution, off the tape; logits of a bounded number of rows at a time.
std::vector<double> entropies_of(const Model& model, const AnswerRows& rows, double temperature = 1);

// Fills `log_probs` of all rollouts by training's forward, and hands each batch's rows to `also`. Batches
// take up to `batch_tokens`, at least one rollout. Off the tape.
void score_rollouts(const Model& model, std::span<Rollout> rollouts, double temperature, DType compute_type,
                    int64_t batch_tokens, Metrics* metrics,
                    const std::function<void(std::span<Rollout>, const AnswerRows&)>& also = {});
// Fills `reference`: by `model` itself with its adapter off, or by another model that stays as it is.
void score_reference(const Model& model, Adapter* adapter, std::span<Rollout> rollouts, double temperature,
                     DType compute_type, int64_t batch_tokens);

Json to_json(const Rollout& rollout);
// Error naming what is missing; floats come back to the bit.
Rollout rollout_from_json(const Json& json, const std::string& where);

}  // namespace qkv
