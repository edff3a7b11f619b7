#include "qkv/train/recipes/kto.h"

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

size_t prompt_length(const TokenSample& sample) {
  return static_cast<size_t>(std::find(sample.learned.begin(), sample.learned.end(), 1) -
                             sample.learned.begin());
}

bool same_prompt(const TokenSample& a, const TokenSample& b) {
  const size_t n = prompt_length(a);
  return n == prompt_length(b) &&
         std::equal(a.tokens.begin(), a.tokens.begin() + static_cast<std::ptrdiff_t>(n), b.tokens.begin());
}

// The prompt of one with the answer of the other.
TokenSample joined(const TokenSample& prompt, const TokenSample& answer, int64_t max_length) {
  const auto n = static_cast<std::ptrdiff_t>(prompt_length(prompt)),
             from = static_cast<std::ptrdiff_t>(prompt_length(answer));
  TokenSample sample;
  sample.tokens.assign(prompt.tokens.begin(), prompt.tokens.begin() + n);
  sample.learned.assign(static_cast<size_t>(n), 0);
  sample.tokens.insert(sample.tokens.end(), answer.tokens.begin() + from, answer.tokens.end());
  sample.learned.insert(sample.learned.end(), answer.learned.begin() + from, answer.learned.end());
  if (max_length > 0 && static_cast<int64_t>(sample.tokens.size()) > max_length) {
    sample.tokens.resize(static_cast<size_t>(max_length));
    sample.learned.resize(static_cast<size_t>(max_length));
  }
  return sample;
}

}  // namespace

struct Kto::Work : MicroBatch {
  Batch batch, mismatched;
  std::vector<char> good;
  std::vector<float> reference, mismatched_reference;  // if they are kept
};

Kto::Kto(const Model& model, Adapter* adapter, std::vector<LabelledSample> train,
         std::vector<LabelledSample> valid, const KtoOptions& options, const TuneConfig& config)
    : model_(model),
      adapter_(adapter),
      options_(options),
      config_(config),
      order_(train.size(), config.seed) {
  train_.samples = std::move(train);
  valid_.samples = std::move(valid);
  options_.keep_reference = options_.keep_reference || adapter == nullptr;
  require(train_.samples.size() > 1, "kto: expected at least two answers to learn from, found one");
  find_partners(train_);
  find_partners(valid_);
  if (!options_.keep_reference) return;
  keep_reference(train_);
  keep_reference(valid_);
}

// The next in a drawn order, or the next after it that has another prompt.
void Kto::find_partners(Samples& samples) const {
  const size_t n = samples.samples.size();
  const std::vector<uint32_t> drawn = epoch_order(n, config_.seed, -1);
  samples.partner.resize(n);
  for (size_t i = 0; i < n; ++i) {
    constexpr size_t kTried = 16;
    size_t other = drawn[(i + 1) % n];
    for (size_t step = 1; step <= std::min(kTried, n - 1); ++step) {
      other = drawn[(i + step) % n];
      if (!same_prompt(samples.samples[drawn[i]].sample, samples.samples[other].sample)) break;
    }
    samples.partner[drawn[i]] = other;
  }
}

void Kto::keep_reference(Samples& samples) const {
  const auto step = static_cast<size_t>(options_.batch_answers);
  std::vector<float> own, other;
  for (size_t begin = 0; begin < samples.samples.size(); begin += step) {
    stop_if_interrupted();
    std::vector<size_t> which(std::min(samples.samples.size(), begin + step) - begin);
    std::iota(which.begin(), which.end(), begin);
    const auto work = batch_of(samples, which);
    const auto take = [&](const Batch& batch, std::vector<float>& into) {
      const std::vector<float> values = reference_log_probs(model_, adapter_, batch, config_.compute_type);
      into.insert(into.end(), values.begin(), values.end());
    };
    take(work->batch, own);
    if (is_kto()) take(work->mismatched, other);
  }
  samples.reference = std::move(own);
  samples.mismatched = std::move(other);
}

std::unique_ptr<Kto::Work> Kto::batch_of(const Samples& from, const std::vector<size_t>& which) const {
  auto work = std::make_unique<Work>();
  for (const size_t i : which) {
    const LabelledSample& labelled = from.samples[i];
    append_sample(work->batch, labelled.sample);
    work->good.push_back(labelled.good ? 1 : 0);
    if (!from.reference.empty()) work->reference.push_back(from.reference[i]);
    if (!is_kto()) continue;
    append_sample(work->mismatched,
                  joined(labelled.sample, from.samples[from.partner[i]].sample, options_.max_length));
    if (!from.mismatched.empty()) work->mismatched_reference.push_back(from.mismatched[i]);
  }
  work->tokens = static_cast<int64_t>(work->batch.tokens.size());
  work->counted = static_cast<double>(which.size());
  work->context = mean_context(work->batch.pass.sequences);
  return work;
}

std::unique_ptr<MicroBatch> Kto::next() {
  return batch_of(train_, order_.next(options_.batch_answers, cursor_));
}

losses::UnpairedLosses<float> Kto::losses_of(const Work& work, std::span<const float> policy,
                                             Metrics& metrics, RunningMean& rewards) const {
  const std::vector<float> reference =
      work.reference.empty() ? reference_log_probs(model_, adapter_, work.batch, config_.compute_type)
                             : work.reference;
  losses::UnpairedOptions options = options_.loss;
  if (is_kto()) {
    const NoGrad off;
    Pass pass = work.mismatched.pass;
    pass.compute_type = config_.compute_type;
    const Tensor own = answer_log_probs(model_, work.mismatched, pass);
    const std::vector<float> other =
        work.mismatched_reference.empty()
            ? reference_log_probs(model_, adapter_, work.mismatched, config_.compute_type)
            : work.mismatched_reference;
    options.baseline = losses::kto_baseline<float>(own.span<float>(), other);
    metrics.add("kl", *options.baseline, 1);
  } else if (options.loss == losses::UnpairedLoss::bco) {
    double sum = 0;
    for (size_t i = 0; i < reference.size(); ++i)
      sum += options.beta * static_cast<double>(policy[i] - reference[i]);
    rewards.add(sum, static_cast<double>(reference.size()));
    options.baseline = rewards.mean;
  }
  losses::UnpairedLosses<float> out =
      losses::unpaired<float>(policy, reference, std::span<const char>(work.good), options);
  for (size_t i = 0; i < out.rewards.size(); ++i) {
    const char* which = work.good[i] ? "chosen" : "rejected";
    metrics.add(fmt::format("rewards/{}", which), static_cast<double>(out.rewards[i]), 1);
    metrics.add(fmt::format("logps/{}", which), static_cast<double>(policy[i]), 1);
  }
  return out;
}

Tensor Kto::loss(const MicroBatch& batch, uint64_t dropout_stream) {
  const Work& work = static_cast<const Work&>(batch);
  Pass pass = work.batch.pass;
  set_training(pass, adapter_, config_, dropout_stream);
  const Tensor policy = answer_log_probs(model_, work.batch, pass);
  const losses::UnpairedLosses<float> out = losses_of(work, policy.span<float>(), metrics_, rewards_);
  Tensor gradient = Tensor::empty(policy.shape());
  std::copy(out.gradients.begin(), out.gradients.end(), gradient.data<float>());
  return losses::with_gradients(std::accumulate(out.losses.begin(), out.losses.end(), 0.0), {policy},
                                {gradient});
}

EvaluationResult Kto::evaluate() {
  EvaluationResult result;
  if (valid_.samples.empty()) return result;
  const NoGrad off;
  Metrics metrics;
  RunningMean rewards = rewards_;
  double total = 0;
  const auto step = static_cast<size_t>(options_.batch_answers);
  for (size_t begin = 0; begin < valid_.samples.size(); begin += step) {
    std::vector<size_t> which(std::min(valid_.samples.size(), begin + step) - begin);
    std::iota(which.begin(), which.end(), begin);
    const auto work = batch_of(valid_, which);
    Pass pass = work->batch.pass;
    pass.compute_type = config_.compute_type;
    const Tensor policy = answer_log_probs(model_, work->batch, pass);
    const auto out = losses_of(*work, policy.span<float>(), metrics, rewards);
    total += std::accumulate(out.losses.begin(), out.losses.end(), 0.0);
  }
  std::map<std::string, double> means = metrics.means();
  log_info("validation answers: mean reward {:.3f} of the good, {:.3f} of the bad", means["rewards/chosen"],
           means["rewards/rejected"]);
  result.tokens = static_cast<int64_t>(valid_.samples.size());
  result.loss = total / static_cast<double>(valid_.samples.size());
  return result;
}

Json Kto::state() const {
  Json json = {{"epoch", cursor_.epoch}, {"answer", cursor_.window}, {"rewards", rewards_.state()}};
  if (options_.keep_reference) {
    json["reference"] = {{"train", train_.reference},
                         {"train_mismatched", train_.mismatched},
                         {"valid", valid_.reference},
                         {"valid_mismatched", valid_.mismatched}};
  }
  return json;
}

void Kto::restore(const Json& state) {
  const JsonView view(state, "kto state");
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("answer");
  rewards_.restore(view.object("rewards"));
  if (!options_.keep_reference) return;
  restore_numbers(view.object("reference"), {{"train", &train_.reference},
                                             {"train_mismatched", &train_.mismatched},
                                             {"valid", &valid_.reference},
                                             {"valid_mismatched", &valid_.mismatched}});
}

}  // namespace qkv
