#include "qkv/train/recipes/pairs.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/log.h"
#include "qkv/train/answers.h"
#include "qkv/train/losses/on_tape.h"
#include "qkv/train/recipes/pretrain.h"

namespace qkv {
namespace {

std::vector<size_t> range(size_t begin, size_t end) {
  std::vector<size_t> which(end - begin);
  std::iota(which.begin(), which.end(), begin);
  return which;
}

double total(std::span<const float> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

// Chosen answers first, then the rejected ones.
struct PairRecipe::Work : MicroBatch {
  Batch batch;
  std::vector<float> lengths;    // of the chosen answers
  std::vector<float> reference;  // if it is kept
  size_t pairs() const { return lengths.size(); }
};

PairRecipe::PairRecipe(const Model& model, Adapter* adapter, std::vector<PreferencePair> train,
                       std::vector<PreferencePair> valid, const PairOptions& options,
                       const TuneConfig& config)
    : model_(model),
      adapter_(adapter),
      options_(options),
      config_(config),
      order_(train.size(), config.seed) {
  train_.pairs = std::move(train);
  valid_.pairs = std::move(valid);
  options_.keep_reference = options_.reference && (options_.keep_reference || adapter_ == nullptr);
  if (!options_.keep_reference) return;
  keep_reference(train_);
  keep_reference(valid_);
}

std::unique_ptr<PairRecipe::Work> PairRecipe::batch_of(const Pairs& from,
                                                       const std::vector<size_t>& which) const {
  auto work = std::make_unique<Work>();
  for (const bool chosen : {true, false}) {
    for (const size_t i : which) {
      const TokenSample& sample = chosen ? from.pairs[i].chosen : from.pairs[i].rejected;
      append_sample(work->batch, sample);
      if (chosen) work->lengths.push_back(static_cast<float>(sample.learned_count()));
      if (!from.chosen.empty()) work->reference.push_back((chosen ? from.chosen : from.rejected)[i]);
    }
  }
  work->tokens = static_cast<int64_t>(work->batch.tokens.size());
  work->counted = static_cast<double>(which.size());
  work->context = mean_context(work->batch.pass.sequences);
  return work;
}

std::vector<float> PairRecipe::reference(const Work& work) const {
  if (!options_.reference || !work.reference.empty()) return work.reference;
  return reference_log_probs(model_, adapter_, work.batch, config_.compute_type, options_.averages);
}

void PairRecipe::keep_reference(Pairs& pairs) const {
  std::vector<float> chosen, rejected;
  const auto step = static_cast<size_t>(options_.batch_pairs);
  for (size_t begin = 0; begin < pairs.pairs.size(); begin += step) {
    stop_if_interrupted();
    const std::vector<float> both =
        reference(*batch_of(pairs, range(begin, std::min(pairs.pairs.size(), begin + step))));
    const auto half = both.begin() + static_cast<std::ptrdiff_t>(both.size() / 2);
    chosen.insert(chosen.end(), both.begin(), half);
    rejected.insert(rejected.end(), half, both.end());
  }
  pairs.chosen = std::move(chosen);
  pairs.rejected = std::move(rejected);
}

std::unique_ptr<MicroBatch> PairRecipe::next() {
  return batch_of(train_, order_.next(options_.batch_pairs, cursor_));
}

PairLogProbs PairRecipe::log_probs_of(const Work& work, std::span<const float> policy,
                                      std::span<const float> reference) const {
  const size_t n = work.pairs();
  PairLogProbs result{policy.subspan(0, n), policy.subspan(n, n), {}, {}, work.lengths};
  if (reference.empty()) return result;
  result.reference_chosen = reference.subspan(0, n);
  result.reference_rejected = reference.subspan(n, n);
  return result;
}

losses::PairLosses<float> PairRecipe::reported_losses(const PairLogProbs& pairs, Metrics& metrics) const {
  losses::PairLosses<float> out = losses_of(pairs, metrics);
  const auto n = static_cast<double>(pairs.chosen.size());
  double right = 0;
  for (size_t i = 0; i < out.chosen_rewards.size(); ++i)
    right += out.chosen_rewards[i] > out.rejected_rewards[i] ? 1 : 0;
  const double chosen = total(out.chosen_rewards), rejected = total(out.rejected_rewards);
  metrics.add("rewards/chosen", chosen, n);
  metrics.add("rewards/rejected", rejected, n);
  metrics.add("rewards/margins", chosen - rejected, n);
  metrics.add("rewards/accuracies", right, n);
  metrics.add("logps/chosen", total(pairs.chosen), n);
  metrics.add("logps/rejected", total(pairs.rejected), n);
  return out;
}

Tensor PairRecipe::loss(const MicroBatch& batch, uint64_t dropout_stream) {
  const Work& work = static_cast<const Work&>(batch);
  const std::vector<float> reference_logps = reference(work);
  Pass pass = work.batch.pass;
  set_training(pass, adapter_, config_, dropout_stream);
  const Tensor policy = answer_log_probs(model_, work.batch, pass, options_.averages);
  const PairLogProbs pairs = log_probs_of(work, policy.span<float>(), reference_logps);
  observe(pairs);
  const losses::PairLosses<float> out = reported_losses(pairs, metrics_);
  Tensor gradient = Tensor::empty(policy.shape());
  std::copy(out.d_chosen.begin(), out.d_chosen.end(), gradient.data<float>());
  std::copy(out.d_rejected.begin(), out.d_rejected.end(),
            gradient.data<float>() + static_cast<std::ptrdiff_t>(work.pairs()));
  return losses::with_gradients(total(out.losses), {policy}, {gradient});
}

EvaluationResult PairRecipe::evaluate() {
  EvaluationResult result;
  if (valid_.pairs.empty()) return result;
  const NoGrad off;
  Metrics metrics;
  double sum = 0;
  const auto step = static_cast<size_t>(options_.batch_pairs);
  for (size_t begin = 0; begin < valid_.pairs.size(); begin += step) {
    const auto work = batch_of(valid_, range(begin, std::min(valid_.pairs.size(), begin + step)));
    const std::vector<float> reference_logps = reference(*work);
    Pass pass = work->batch.pass;
    pass.compute_type = config_.compute_type;
    const Tensor policy = answer_log_probs(model_, work->batch, pass, options_.averages);
    sum += total(reported_losses(log_probs_of(*work, policy.span<float>(), reference_logps), metrics).losses);
  }
  std::map<std::string, double> means = metrics.means();
  valid_accuracy_ = means["rewards/accuracies"];
  log_info("validation pairs: chosen rewarded more in {:.1f} %, mean margin {:.3f}", 100 * valid_accuracy_,
           means["rewards/margins"]);
  result.tokens = static_cast<int64_t>(valid_.pairs.size());
  result.loss = sum / static_cast<double>(valid_.pairs.size());
  return result;
}

Json PairRecipe::state() const {
  Json json = {{"epoch", cursor_.epoch}, {"pair", cursor_.window}};
  if (options_.keep_reference) {
    json["reference"] = {{"chosen", train_.chosen},
                         {"rejected", train_.rejected},
                         {"valid_chosen", valid_.chosen},
                         {"valid_rejected", valid_.rejected}};
  }
  return json;
}

void PairRecipe::restore(const Json& state) {
  const JsonView view(state, "recipe state");
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("pair");
  if (!options_.keep_reference) return;
  restore_numbers(view.object("reference"), {{"chosen", &train_.chosen},
                                             {"rejected", &train_.rejected},
                                             {"valid_chosen", &valid_.chosen},
                                             {"valid_rejected", &valid_.rejected}});
}

}  // namespace qkv
