#include "qkv/train/recipes/reward.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "qkv/core/log.h"
#include "qkv/train/losses/on_tape.h"
#include "qkv/train/recipes/pretrain.h"

namespace qkv {
namespace {

// Wilson's 95 % interval of a share.
std::pair<double, double> interval(double share, double n) {
  const double z = 1.96, middle = (share + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  return {middle - half, middle + half};
}

}  // namespace

// Chosen answers first, then the rejected ones.
struct RewardModel::Work : MicroBatch {
  Batch batch;
  std::vector<float> margins;
  size_t pairs = 0;
};

RewardModel::RewardModel(const ScoreModel& model, Adapter* adapter, std::vector<PreferencePair> train,
                         std::vector<PreferencePair> valid, const RewardOptions& options,
                         const TuneConfig& config)
    : model_(model),
      adapter_(adapter),
      train_(std::move(train)),
      valid_(std::move(valid)),
      options_(options),
      config_(config),
      order_(train_.size(), config.seed) {}

std::unique_ptr<RewardModel::Work> RewardModel::batch_of(const std::vector<PreferencePair>& from,
                                                         const std::vector<size_t>& which) const {
  auto work = std::make_unique<Work>();
  for (const size_t i : which) append_sample(work->batch, from[i].chosen);
  for (const size_t i : which) append_sample(work->batch, from[i].rejected);
  for (const size_t i : which) {
    if (options_.margins) work->margins.push_back(from[i].margin);
  }
  work->pairs = which.size();
  work->tokens = static_cast<int64_t>(work->batch.tokens.size());
  work->counted = static_cast<double>(which.size());
  work->context = mean_context(work->batch.pass.sequences);
  return work;
}

std::unique_ptr<MicroBatch> RewardModel::next() {
  return batch_of(train_, order_.next(options_.batch_pairs, cursor_));
}

Tensor RewardModel::scores(const Work& work, const Pass& pass) const {
  return model_.scores(model_.forward(work.batch.tokens, pass), pass.sequences);
}

losses::RewardLosses<float> RewardModel::losses_of(const Work& work, std::span<const float> scores,
                                                   Metrics& metrics) const {
  const auto chosen = scores.subspan(0, work.pairs), rejected = scores.subspan(work.pairs, work.pairs);
  double right = 0, margin = 0;
  for (size_t i = 0; i < work.pairs; ++i) {
    right += chosen[i] > rejected[i] ? 1 : 0;
    margin += static_cast<double>(chosen[i] - rejected[i]);
  }
  const auto n = static_cast<double>(work.pairs);
  metrics.add("accuracy", right, n);
  metrics.add("margin", margin, n);
  metrics.add("mean_reward", std::accumulate(scores.begin(), scores.end(), 0.0), 2 * n);
  return losses::reward_model<float>(chosen, rejected, work.margins, options_.centering);
}

Tensor RewardModel::loss(const MicroBatch& batch, uint64_t dropout_stream) {
  const Work& work = static_cast<const Work&>(batch);
  Pass pass = work.batch.pass;
  set_training(pass, adapter_, config_, dropout_stream);
  const Tensor all = scores(work, pass);
  const losses::RewardLosses<float> out = losses_of(work, all.span<float>(), metrics_);
  Tensor gradient = Tensor::empty(all.shape());
  std::copy(out.d_chosen.begin(), out.d_chosen.end(), gradient.data<float>());
  std::copy(out.d_rejected.begin(), out.d_rejected.end(),
            gradient.data<float>() + static_cast<std::ptrdiff_t>(work.pairs));
  return losses::with_gradients(std::accumulate(out.losses.begin(), out.losses.end(), 0.0), {all},
                                {gradient});
}

EvaluationResult RewardModel::evaluate() {
  EvaluationResult result;
  if (valid_.empty()) return result;
  const NoGrad off;
  Metrics metrics;
  double total = 0, longer = 0;
  const auto step = static_cast<size_t>(options_.batch_pairs);
  for (size_t begin = 0; begin < valid_.size(); begin += step) {
    std::vector<size_t> which(std::min(valid_.size(), begin + step) - begin);
    std::iota(which.begin(), which.end(), begin);
    const auto work = batch_of(valid_, which);
    Pass pass = work->batch.pass;
    pass.compute_type = config_.compute_type;
    const losses::RewardLosses<float> out = losses_of(*work, scores(*work, pass).span<float>(), metrics);
    total += std::accumulate(out.losses.begin(), out.losses.end(), 0.0);
  }
  for (const PreferencePair& pair : valid_) {
    const size_t a = pair.chosen.tokens.size(), b = pair.rejected.tokens.size();
    longer += a > b ? 1 : a == b ? 0.5 : 0;
  }
  std::map<std::string, double> means = metrics.means();
  const auto n = static_cast<double>(valid_.size());
  valid_accuracy_ = means["accuracy"];
  const auto [low, high] = interval(valid_accuracy_, n);
  const double by_length = std::max(longer, n - longer) / n;
  log_info(
      "validation pairs: the chosen answer scores higher in {:.1f} % of {} ({:.1f} to {:.1f}), mean margin "
      "{:.3f}; "
      "by length alone {:.1f} %",
      100 * valid_accuracy_, valid_.size(), 100 * low, 100 * high, means["margin"], 100 * by_length);
  result.tokens = static_cast<int64_t>(valid_.size());
  result.loss = total / n;
  return result;
}

Json RewardModel::state() const {
  return {{"epoch", cursor_.epoch}, {"pair", cursor_.window}};
}

void RewardModel::restore(const Json& state) {
  const JsonView view(state, "reward state");
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("pair");
}

}  // namespace qkv
