#include "qkv/train/recipes/on_policy.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/train/losses/on_tape.h"
#include "qkv/train/recipes/pretrain.h"

namespace qkv {
namespace {

// Streams of sampling: one per round of a generation; evaluation has one of its own.
constexpr uint64_t kRoundsPerGeneration = 64, kEvaluationStream = ~uint64_t{0};

}  // namespace

OnPolicy::OnPolicy(Parts parts, const OnPolicyConfig& config) : parts_(std::move(parts)), config_(config) {
  require(!parts_.train.empty(), "rollouts: expected prompts, found none");
  require(config_.sampling_rounds <= static_cast<int64_t>(kRoundsPerGeneration),
          "rollouts: expected at most {} rounds of sampling, found {}", kRoundsPerGeneration,
          config_.sampling_rounds);
}

std::vector<size_t> OnPolicy::draw_prompts() {
  std::vector<size_t> which;
  while (static_cast<int64_t>(which.size()) < config_.prompts) {
    if (cursor_.window >= static_cast<int64_t>(parts_.train.size())) {
      ++cursor_.epoch;
      cursor_.window = 0;
    }
    if (prepared_epoch_ != cursor_.epoch) {
      prompt_order_ = epoch_order(parts_.train.size(), config_.tune.seed, cursor_.epoch);
      prepared_epoch_ = cursor_.epoch;
    }
    which.push_back(prompt_order_[static_cast<size_t>(cursor_.window++)]);
  }
  return which;
}

std::vector<Rollout> OnPolicy::sample(const std::vector<Prompt>& from, const std::vector<size_t>& which,
                                      int64_t group, uint64_t stream) const {
  std::vector<const std::vector<int32_t>*> prompts;
  for (const size_t i : which) prompts.push_back(&from[i].tokens);
  std::vector<Rollout> rollouts =
      sample_rollouts(parts_.model, parts_.tokenizer, prompts, group, config_.rollout, stream);
  for (Rollout& rollout : rollouts) rollout.prompt = which[rollout.prompt];
  return rollouts;
}

Tensor OnPolicy::summed(const losses::TokenLoss<float>& mean, const Tensor& input, double factor) {
  Tensor gradient = Tensor::empty(input.shape());
  std::transform(mean.gradient.begin(), mean.gradient.end(), gradient.data<float>(),
                 [&](float g) { return static_cast<float>(static_cast<double>(g) * factor); });
  return losses::with_gradients(mean.value * factor, {input}, {gradient});
}

double OnPolicy::total_score(const Rollout& rollout) {
  double total = rollout.score;
  for (const auto& [token, score] : rollout.step_scores) total += score;
  return total;
}

std::vector<float> OnPolicy::all(std::span<const Rollout> rollouts, std::vector<float> Rollout::*member) {
  std::vector<float> values;
  for (const Rollout& rollout : rollouts)
    values.insert(values.end(), (rollout.*member).begin(), (rollout.*member).end());
  return values;
}

void OnPolicy::note_answers(std::span<const Rollout> rollouts) {
  const auto n = static_cast<double>(rollouts.size());
  double tokens = 0, cut = 0, ended_tokens = 0;
  double shortest = 1e18, longest = 0;
  for (const Rollout& rollout : rollouts) {
    const auto length = static_cast<double>(rollout.tokens.size());
    tokens += length;
    shortest = std::min(shortest, length);
    longest = std::max(longest, length);
    cut += rollout.ended ? 0 : 1;
    ended_tokens += rollout.ended ? length : 0;
  }
  metrics_.add("completions/mean_length", tokens, n);
  metrics_.add("completions/min_length", shortest, 1);
  metrics_.add("completions/max_length", longest, 1);
  metrics_.add("completions/clipped_ratio", cut, n);
  metrics_.add("completions/mean_terminated_length", ended_tokens, n - cut);
  const auto group = static_cast<size_t>(config_.group);
  for (size_t begin = 0; begin < rollouts.size(); begin += group) {
    std::vector<double> scores;
    for (size_t i = begin; i < begin + group; ++i) scores.push_back(total_score(rollouts[i]));
    const losses::Moments m = losses::moments<double>(scores);
    metrics_.add("reward", m.mean, 1);
    metrics_.add("reward_std", std::sqrt(m.variance), 1);
    metrics_.add("frac_reward_zero_std", m.variance == 0 ? 1 : 0, 1);
  }
}

void OnPolicy::generate() {
  std::vector<Rollout> kept;
  const auto group = static_cast<size_t>(config_.group);
  const size_t wanted = static_cast<size_t>(config_.prompts) * group;
  for (int64_t round = 0; round < config_.sampling_rounds && kept.size() < wanted; ++round) {
    const uint64_t stream =
        static_cast<uint64_t>(generation_) * kRoundsPerGeneration + static_cast<uint64_t>(round);
    std::vector<Rollout> rollouts = sample(parts_.train, draw_prompts(), config_.group, stream);
    parts_.rewards.judge(rollouts, parts_.train, parts_.tokenizer, &metrics_);
    for (Rollout& rollout : rollouts) rollout.score -= rollout.ended ? 0 : config_.missing_end_penalty;
    note_answers(rollouts);
    for (size_t begin = 0; begin < rollouts.size() && kept.size() < wanted; begin += group) {
      const auto first = rollouts.begin() + static_cast<std::ptrdiff_t>(begin);
      const auto last = first + static_cast<std::ptrdiff_t>(group);
      const double score = total_score(*first);
      const bool alike =
          std::all_of(first, last, [&](const Rollout& other) { return total_score(other) == score; });
      if (alike && config_.sampling_rounds > 1) continue;
      kept.insert(kept.end(), std::make_move_iterator(first), std::make_move_iterator(last));
    }
  }
  const TuneConfig& tune = config_.tune;
  score_rollouts(parts_.model, kept, temperature(), tune.compute_type, tune.batch_tokens, &metrics_,
                 [&](std::span<Rollout> some, const AnswerRows& rows) { scored(some, rows); });
  if (needs_reference()) {
    const Model& reference = parts_.adapter != nullptr ? parts_.model : *parts_.reference;
    score_reference(reference, parts_.adapter, kept, temperature(), tune.compute_type, tune.batch_tokens);
  }
  items_ = kept.empty() ? std::move(kept) : prepare(std::move(kept));
  ++generation_;
  micro_ = 0;
}

std::unique_ptr<MicroBatch> OnPolicy::next() {
  if (generation_ == 0 || micro_ == micro_batches()) generate();
  const int64_t parts = config_.minibatches * config_.accumulation;
  const int64_t iteration = micro_ / parts, part = micro_ % parts;
  const auto n = static_cast<int64_t>(items_.size() / item_size());
  const std::vector<uint32_t> order = epoch_order(static_cast<size_t>(n), config_.tune.seed + 1,
                                                  (generation_ - 1) * config_.iterations + iteration);
  auto work = std::make_unique<Work>();
  work->fresh = micro_ < config_.accumulation;
  for (int64_t i = part * n / parts; i < (part + 1) * n / parts; ++i) {
    for (size_t j = 0; j < item_size(); ++j)
      work->rollouts.push_back(items_[order[static_cast<size_t>(i)] * item_size() + j]);
  }
  ++micro_;
  for (const Rollout& rollout : work->rollouts)
    work->tokens += static_cast<int64_t>(rollout.prompt_tokens.size() + rollout.tokens.size());
  if (work->rollouts.empty()) return work;
  work->counted = count(work->rollouts);
  work->context = mean_context(rollout_batch(work->rollouts).pass.sequences);
  return work;
}

Tensor OnPolicy::loss(const MicroBatch& micro, uint64_t dropout_stream) {
  const auto& work = static_cast<const Work&>(micro);
  if (work.rollouts.empty()) return Tensor::zeros({1});
  const Batch batch = rollout_batch(work.rollouts);
  Pass pass = batch.pass;
  set_training(pass, parts_.adapter, config_.tune, dropout_stream);
  return loss_of(work, answer_rows(parts_.model, batch, pass));
}

EvaluationResult OnPolicy::evaluate() {
  if (parts_.valid.empty()) return {};
  std::vector<size_t> which(parts_.valid.size());
  for (size_t i = 0; i < which.size(); ++i) which[i] = i;
  std::vector<Rollout> rollouts = sample(parts_.valid, which, 1, kEvaluationStream);
  parts_.rewards.judge(rollouts, parts_.valid, parts_.tokenizer, nullptr);
  std::vector<double> scores;
  for (const Rollout& rollout : rollouts) scores.push_back(total_score(rollout));
  const losses::Moments m = losses::moments<double>(scores);
  valid_score_ = m.mean;
  log_info("{} held-out prompts: reward {:.4f} (+- {:.4f})", scores.size(), m.mean,
           std::sqrt(m.variance / static_cast<double>(scores.size())));
  metrics_.add("eval/reward", m.mean, 1);
  return {};
}

Json OnPolicy::own_state() const {
  return Json::object();
}

Json OnPolicy::state() const {
  Json items = Json::array();
  if (micro_ < micro_batches()) {
    for (const Rollout& item : items_) items.push_back(to_json(item));
  }
  return {{"epoch", cursor_.epoch}, {"prompt", cursor_.window}, {"generation", generation_},
          {"forward", micro_},      {"items", items},           {"own", own_state()}};
}

void OnPolicy::restore(const Json& state) {
  const std::string where = std::string(name()) + " state";
  const JsonView view(state, where);
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("prompt");
  generation_ = view.integer("generation");
  micro_ = view.integer("forward");
  restore_own(view.object("own"));
  items_.clear();
  const Json* items = view.find("items");
  require(items != nullptr && items->is_array(), "{}: key 'items': expected a list, found none", where);
  for (const Json& item : *items) items_.push_back(rollout_from_json(item, where));
}

}  // namespace qkv
