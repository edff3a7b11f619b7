#include "qkv/train/answers.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/losses/on_tape.h"

namespace qkv {

ReferenceMode::ReferenceMode(Adapter* adapter) : adapter_(adapter) {
  if (adapter_ != nullptr) adapter_->set_enabled(false);
}

ReferenceMode::~ReferenceMode() {
  if (adapter_ != nullptr) adapter_->set_enabled(true);
}

CountedRows counted_rows(const std::vector<int32_t>& targets, const ops::PackedSequences& sequences) {
  CountedRows counted;
  counted.offsets.push_back(0);
  for (size_t s = 0; s + 1 < sequences.offsets.size(); ++s) {
    for (int64_t t = sequences.offsets[s]; t < sequences.offsets[s + 1]; ++t) {
      const int32_t target = targets[static_cast<size_t>(t)];
      if (target == ops::kIgnore) continue;
      counted.rows.push_back(t);
      counted.targets.push_back(target);
    }
    counted.offsets.push_back(static_cast<int64_t>(counted.rows.size()));
  }
  return counted;
}

Tensor take_rows(const Tensor& hidden, const CountedRows& counted) {
  if (static_cast<int64_t>(counted.rows.size()) == hidden.rows()) return hidden;
  return ops::select_rows(hidden, counted.rows);
}

TokenLogProbs token_log_probs(const Model& model, const std::vector<int32_t>& tokens,
                              const std::vector<int32_t>& targets, const Pass& pass) {
  CountedRows counted = counted_rows(targets, pass.sequences);
  const Tensor hidden = take_rows(model.forward(tokens, pass), counted);
  return {ops::linear_log_probs(model.head_input(hidden), model.head(), counted.targets,
                                model.logit_options(), model.head_bias()),
          std::move(counted.offsets)};
}

Tensor answer_log_probs(const Model& model, const Batch& batch, const Pass& pass, bool averages) {
  const TokenLogProbs log_probs = token_log_probs(model, batch.tokens, batch.targets, pass);
  std::vector<float> divisors;
  for (size_t s = 0; averages && s + 1 < log_probs.offsets.size(); ++s) {
    const int64_t tokens = log_probs.offsets[s + 1] - log_probs.offsets[s];
    require(tokens > 0, "log-probabilities: expected tokens that count in sequence {}, found none", s);
    divisors.push_back(static_cast<float>(tokens));
  }
  return losses::segment_sums(log_probs.values, log_probs.offsets, divisors);
}

std::vector<float> reference_log_probs(const Model& model, Adapter* adapter, const Batch& batch,
                                       DType compute_type, bool averages) {
  const NoGrad off;
  const ReferenceMode reference(adapter);
  Pass pass = batch.pass;
  pass.compute_type = compute_type;
  return answer_log_probs(model, batch, pass, averages).to_floats();
}

void restore_numbers(const JsonView& view,
                     const std::vector<std::pair<std::string, std::vector<float>*>>& lists) {
  for (const auto& [key, into] : lists) {
    const Json* values = view.find(key);
    require(values != nullptr && values->is_array() && values->size() == into->size(),
            "{}: key '{}': expected {} numbers, found {}", view.where(), key, into->size(),
            values == nullptr ? 0 : values->size());
    *into = values->get<std::vector<float>>();
  }
}

}  // namespace qkv
