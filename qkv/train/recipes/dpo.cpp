#include "qkv/train/recipes/dpo.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/losses/on_tape.h"
#include "qkv/train/recipes/pretrain.h"

namespace qkv {

// Chosen answers first, then the rejected ones.
struct Dpo::Work : MicroBatch {
  Batch batch;
  std::vector<float> divisors;          // lengths of the answers, for losses of averages
  std::vector<float> chosen, rejected;  // the reference's; empty: to be asked
  size_t pairs() const { return batch.pass.sequences.offsets.size() / 2; }
};

Dpo::Dpo(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
         std::vector<PreferencePair> valid, int64_t batch_pairs, const losses::DpoOptions& loss,
         const TuneConfig& config)
    : model_(model), adapter_(adapter), batch_pairs_(batch_pairs), loss_(loss), config_(config) {
  require(!train.empty(), "dpo: expected pairs, found none");
  train_.pairs = std::move(train);
  valid_.pairs = std::move(valid);
  if (adapter_ != nullptr) return;
  keep_reference(train_);
  keep_reference(valid_);
}

std::unique_ptr<Dpo::Work> Dpo::batch_of(const Pairs& from, std::vector<size_t> which) const {
  auto work = std::make_unique<Work>();
  for (bool chosen : {true, false}) {
    for (size_t i : which) {
      const TokenSample& sample = chosen ? from.pairs[i].chosen : from.pairs[i].rejected;
      append_sample(work->batch, sample);
      if (losses::wants_average(loss_.loss))
        work->divisors.push_back(static_cast<float>(sample.learned_count()));
      if (!from.chosen.empty())
        (chosen ? work->chosen : work->rejected).push_back((chosen ? from.chosen : from.rejected)[i]);
    }
  }
  work->tokens = static_cast<int64_t>(work->batch.tokens.size());
  work->counted = static_cast<double>(which.size());
  work->context = mean_context(work->batch.pass.sequences);
  return work;
}

Tensor Dpo::log_probs(const Work& work, const Pass& pass) const {
  const Tensor hidden = model_.forward(work.batch.tokens, pass);
  const Tensor per_token = ops::linear_log_probs(model_.head_input(hidden), model_.head(), work.batch.targets,
                                                 model_.logit_options(), model_.head_bias());
  return losses::segment_sums(per_token, work.batch.pass.sequences.offsets, work.divisors);
}

Dpo::Logps Dpo::reference(const Work& work) const {
  if (!work.chosen.empty()) return {work.chosen, work.rejected};
  const NoGrad off;
  Pass pass = work.batch.pass;
  pass.compute_type = config_.compute_type;
  if (adapter_ != nullptr) adapter_->control().enabled = false;
  const std::vector<float> all = log_probs(work, pass).to_floats();
  if (adapter_ != nullptr) adapter_->control().enabled = true;
  const auto half = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
  return {{all.begin(), half}, {half, all.end()}};
}

void Dpo::keep_reference(Pairs& pairs) {
  std::vector<float> chosen, rejected;
  for (size_t begin = 0; begin < pairs.pairs.size(); begin += static_cast<size_t>(batch_pairs_)) {
    std::vector<size_t> which;
    for (size_t i = begin; i < std::min(pairs.pairs.size(), begin + static_cast<size_t>(batch_pairs_)); ++i)
      which.push_back(i);
    const Logps logps = reference(*batch_of(pairs, which));
    chosen.insert(chosen.end(), logps.chosen.begin(), logps.chosen.end());
    rejected.insert(rejected.end(), logps.rejected.begin(), logps.rejected.end());
  }
  pairs.chosen = std::move(chosen);
  pairs.rejected = std::move(rejected);
}

std::unique_ptr<MicroBatch> Dpo::next() {
  std::vector<size_t> which;
  while (static_cast<int64_t>(which.size()) < batch_pairs_) {
    if (cursor_.window >= static_cast<int64_t>(train_.pairs.size())) {
      ++cursor_.epoch;
      cursor_.window = 0;
    }
    if (prepared_epoch_ != cursor_.epoch) {
      order_ = epoch_order(train_.pairs.size(), config_.seed, cursor_.epoch);
      prepared_epoch_ = cursor_.epoch;
    }
    which.push_back(order_[static_cast<size_t>(cursor_.window++)]);
  }
  return batch_of(train_, which);
}

Tensor Dpo::loss(const MicroBatch& batch, uint64_t dropout_stream) {
  const Work& work = static_cast<const Work&>(batch);
  const Logps reference_logps = reference(work);
  Pass pass = work.batch.pass;
  set_training(pass, adapter_, config_, dropout_stream);
  const Tensor policy = log_probs(work, pass);
  const std::span<const float> values = policy.span<float>();
  const size_t n = work.pairs();
  const losses::PairLosses<float> out = losses::dpo<float>(
      {values.subspan(0, n), values.subspan(n, n), reference_logps.chosen, reference_logps.rejected}, loss_);
  Tensor gradient = Tensor::empty({static_cast<int64_t>(2 * n)});
  std::copy(out.d_chosen.begin(), out.d_chosen.end(), gradient.data<float>());
  std::copy(out.d_rejected.begin(), out.d_rejected.end(), gradient.data<float>() + n);
  double total = 0;
  for (float loss : out.losses) total += static_cast<double>(loss);
  return losses::with_gradients(total, {policy}, {gradient});
}

EvaluationResult Dpo::evaluate() {
  EvaluationResult result;
  if (valid_.pairs.empty()) return result;
  const NoGrad off;
  double total = 0, right = 0, margin = 0;
  for (size_t begin = 0; begin < valid_.pairs.size(); begin += static_cast<size_t>(batch_pairs_)) {
    std::vector<size_t> which;
    for (size_t i = begin; i < std::min(valid_.pairs.size(), begin + static_cast<size_t>(batch_pairs_)); ++i)
      which.push_back(i);
    const auto work = batch_of(valid_, which);
    const Logps reference_logps = reference(*work);
    Pass pass = work->batch.pass;
    pass.compute_type = config_.compute_type;
    const Tensor policy = log_probs(*work, pass);
    const std::span<const float> values = policy.span<float>();
    const size_t n = which.size();
    const losses::PairLosses<float> out = losses::dpo<float>(
        {values.subspan(0, n), values.subspan(n, n), reference_logps.chosen, reference_logps.rejected},
        loss_);
    for (size_t i = 0; i < n; ++i) {
      total += static_cast<double>(out.losses[i]);
      right += out.chosen_rewards[i] > out.rejected_rewards[i] ? 1 : 0;
      margin += static_cast<double>(out.chosen_rewards[i] - out.rejected_rewards[i]);
    }
  }
  const auto n = static_cast<double>(valid_.pairs.size());
  valid_accuracy_ = right / n;
  log_info("validation pairs: chosen rewarded more in {:.1f} %, mean margin {:.3f}", 100 * valid_accuracy_,
           margin / n);
  result.tokens = static_cast<int64_t>(valid_.pairs.size());
  result.loss = total / n;
  return result;
}

Json Dpo::state() const {
  Json json = {{"epoch", cursor_.epoch}, {"pair", cursor_.window}};
  if (adapter_ == nullptr) {
    json["reference"] = {{"chosen", train_.chosen},
                         {"rejected", train_.rejected},
                         {"valid_chosen", valid_.chosen},
                         {"valid_rejected", valid_.rejected}};
  }
  return json;
}

void Dpo::restore(const Json& state) {
  const JsonView view(state, "dpo state");
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("pair");
  if (adapter_ != nullptr) return;
  const JsonView kept = view.object("reference");
  const auto read = [&](const char* key, std::vector<float>& into) {
    const Json* values = kept.find(key);
    require(values != nullptr && values->is_array() && values->size() == into.size(),
            "dpo state: key 'reference.{}': expected {} numbers, found {}", key, into.size(),
            values == nullptr ? 0 : values->size());
    into = values->get<std::vector<float>>();
  };
  read("chosen", train_.chosen);
  read("rejected", train_.rejected);
  read("valid_chosen", valid_.chosen);
  read("valid_rejected", valid_.rejected);
}

}  // namespace qkv
