#include "qkv/train/rollouts.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/data/sample_batches.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/losses/policy.h"

namespace qkv {
namespace {

ops::CrossEntropyOptions tempered(const Model& model, double temperature) {
  ops::CrossEntropyOptions options = model.logit_options();
  if (temperature == 0 || temperature == 1) return options;
  require(options.softcap == 0,
          "rollout.temperature: expected 1 for {}, whose logits are capped after scaling, found {}",
          model.info().architecture, temperature);
  options.logit_scale = static_cast<float>(options.logit_scale / temperature);
  return options;
}

// Cuts rollouts into batches and calls body(first, count) for each.
void for_batches(std::span<const Rollout> rollouts, int64_t batch_tokens,
                 FunctionRef<void(size_t first, size_t count)> body) {
  for (size_t begin = 0, end = 0; begin < rollouts.size(); begin = end) {
    int64_t tokens = 0;
    for (end = begin; end < rollouts.size(); ++end) {
      const auto length =
          static_cast<int64_t>(rollouts[end].prompt_tokens.size() + rollouts[end].tokens.size());
      if (end > begin && tokens + length > batch_tokens) break;
      tokens += length;
    }
    body(begin, end - begin);
  }
}

// One vector per answer out of one of all its tokens.
void hand_out(std::span<Rollout> rollouts, const std::vector<float>& values,
              std::vector<float> Rollout::*member) {
  size_t at = 0;
  for (Rollout& rollout : rollouts) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(at);
    (rollout.*member).assign(begin, begin + static_cast<std::ptrdiff_t>(rollout.tokens.size()));
    at += rollout.tokens.size();
  }
}

// How far training's forward and the sampler's are apart, as TRL names it.
void note_difference(Metrics& metrics, std::span<const Rollout> rollouts,
                     const std::vector<float>& recomputed) {
  double total = 0, largest = 0, ratios = 0, low = 1e30, high = 0;
  size_t at = 0;
  for (const Rollout& rollout : rollouts) {
    for (const float sampled : rollout.sampled) {
      const double difference = static_cast<double>(recomputed[at++]) - static_cast<double>(sampled);
      total += std::abs(difference);
      largest = std::max(largest, std::abs(difference));
      const double ratio = std::exp(difference);
      ratios += ratio;
      low = std::min(low, ratio);
      high = std::max(high, ratio);
    }
  }
  if (at == 0) return;
  const auto n = static_cast<double>(at);
  metrics.add("sampling/sampling_logp_difference/mean", total, n);
  metrics.add("sampling/sampling_logp_difference/max", largest, 1);
  metrics.add("sampling/importance_sampling_ratio/mean", ratios, n);
  metrics.add("sampling/importance_sampling_ratio/min", low, 1);
  metrics.add("sampling/importance_sampling_ratio/max", high, 1);
}

}  // namespace

std::vector<Rollout> sample_rollouts(const Model& model, const Tokenizer& tokenizer,
                                     const std::vector<const std::vector<int32_t>*>& prompts,
                                     int64_t per_prompt, const RolloutOptions& options, uint64_t stream) {
  EngineOptions engine_options;
  engine_options.compute_type = options.compute_type;
  engine_options.activations = Activations::exact;
  engine_options.max_sequences = options.at_a_time;
  Engine engine(model, &tokenizer, engine_options);
  const Rng seeds = Rng(options.seed).split(0x726f6c6c).split(stream);
  std::vector<Request> requests;
  std::vector<Rollout> rollouts;
  for (size_t p = 0; p < prompts.size(); ++p) {
    for (int64_t i = 0; i < per_prompt; ++i) {
      Request request;
      request.prompt = *prompts[p];
      request.sampler.temperature = static_cast<float>(options.temperature);
      request.sampler.top_p = static_cast<float>(options.top_p);
      request.sampler.top_k = static_cast<int32_t>(options.top_k);
      request.sampler.seed = seeds.split(requests.size()).next_u64();
      request.max_new_tokens = options.max_new_tokens;
      request.stop = options.stop;
      request.stop_ids = options.stop_ids;
      request.logprobs = true;
      Rollout rollout;
      rollout.prompt = p;
      rollout.prompt_tokens = *prompts[p];
      rollouts.push_back(std::move(rollout));
      requests.push_back(std::move(request));
    }
  }
  std::vector<Completion> completions = complete(engine, std::move(requests));
  for (size_t i = 0; i < rollouts.size(); ++i) {
    Completion& completion = completions[i];
    rollouts[i].tokens = std::move(completion.tokens);
    rollouts[i].sampled = std::move(completion.logprobs);
    rollouts[i].text = std::move(completion.text);
    rollouts[i].ended = completion.finish == FinishReason::eos || completion.finish == FinishReason::stop;
    require(rollouts[i].sampled.size() == rollouts[i].tokens.size(),
            "rollouts: expected a log-probability of each of {} tokens, found {}", rollouts[i].tokens.size(),
            rollouts[i].sampled.size());
  }
  return rollouts;
}

Batch rollout_batch(std::span<const Rollout> rollouts) {
  Batch batch;
  for (const Rollout& rollout : rollouts) {
    TokenSample sample;
    sample.tokens = rollout.prompt_tokens;
    sample.learned.assign(sample.tokens.size(), 0);
    sample.tokens.insert(sample.tokens.end(), rollout.tokens.begin(), rollout.tokens.end());
    sample.learned.resize(sample.tokens.size(), 1);
    append_sample(batch, sample);
  }
  return batch;
}

AnswerRows answer_rows(const Model& model, const Batch& batch, const Pass& pass) {
  AnswerRows rows;
  rows.counted = counted_rows(batch.targets, batch.pass.sequences);
  rows.hidden = take_rows(model.forward(batch.tokens, pass), rows.counted);
  return rows;
}

Tensor log_probs_of(const Model& model, const AnswerRows& rows, double temperature) {
  return ops::linear_log_probs(model.head_input(rows.hidden), model.head(), rows.counted.targets,
                               tempered(model, temperature), model.head_bias());
}

std::vector<double> entropies_of(const Model& model, const AnswerRows& rows, double temperature) {
  const NoGrad off;
  tempered(model, temperature);  // refuses what cannot be
  const int64_t vocabulary = model.info().vocabulary, n = rows.hidden.rows();
  const int64_t at_once = std::max<int64_t>(1, (int64_t{1} << 22) / vocabulary);
  std::vector<double> result;
  for (int64_t begin = 0; begin < n; begin += at_once) {
    Tensor logits = model.logits(ops::slice_rows(rows.hidden, begin, std::min(n, begin + at_once)));
    if (temperature != 0 && temperature != 1)
      logits = ops::scale(logits, static_cast<float>(1 / temperature));
    const std::vector<float> part = losses::entropies<float>(logits.span<float>(), logits.cols());
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

void score_rollouts(const Model& model, std::span<Rollout> rollouts, double temperature, DType compute_type,
                    int64_t batch_tokens, Metrics* metrics,
                    const std::function<void(std::span<Rollout>, const AnswerRows&)>& also) {
  const NoGrad off;
  for_batches(rollouts, batch_tokens, [&](size_t first, size_t count) {
    const std::span<Rollout> some = rollouts.subspan(first, count);
    const Batch batch = rollout_batch(some);
    Pass pass = batch.pass;
    pass.compute_type = compute_type;
    const AnswerRows rows = answer_rows(model, batch, pass);
    const std::vector<float> log_probs = log_probs_of(model, rows, temperature).to_floats();
    hand_out(some, log_probs, &Rollout::log_probs);
    if (metrics != nullptr) {
      note_difference(*metrics, some,
                      temperature == 1 ? log_probs : log_probs_of(model, rows, 1).to_floats());
      double total = 0;
      for (const double entropy : entropies_of(model, rows, temperature)) total += entropy;
      metrics->add("entropy", total, static_cast<double>(log_probs.size()));
    }
    if (also) also(some, rows);
  });
}

void score_reference(const Model& model, Adapter* adapter, std::span<Rollout> rollouts, double temperature,
                     DType compute_type, int64_t batch_tokens) {
  const NoGrad off;
  const ReferenceMode reference(adapter);
  for_batches(rollouts, batch_tokens, [&](size_t first, size_t count) {
    const std::span<Rollout> some = rollouts.subspan(first, count);
    const Batch batch = rollout_batch(some);
    Pass pass = batch.pass;
    pass.compute_type = compute_type;
    hand_out(some, log_probs_of(model, answer_rows(model, batch, pass), temperature).to_floats(),
             &Rollout::reference);
  });
}

Json to_json(const Rollout& rollout) {
  Json steps = Json::array();
  for (const auto& [token, score] : rollout.step_scores) steps.push_back({token, score});
  return {{"prompt", rollout.prompt},       {"prompt_tokens", rollout.prompt_tokens},
          {"tokens", rollout.tokens},       {"text", rollout.text},
          {"ended", rollout.ended},         {"sampled", rollout.sampled},
          {"log_probs", rollout.log_probs}, {"reference", rollout.reference},
          {"values", rollout.values},       {"advantages", rollout.advantages},
          {"returns", rollout.returns},     {"score", rollout.score},
          {"advantage", rollout.advantage}, {"step_scores", steps}};
}

Rollout rollout_from_json(const Json& json, const std::string& where) {
  Rollout rollout;
  try {
    rollout.prompt = json.at("prompt").get<size_t>();
    json.at("prompt_tokens").get_to(rollout.prompt_tokens);
    json.at("tokens").get_to(rollout.tokens);
    json.at("text").get_to(rollout.text);
    json.at("ended").get_to(rollout.ended);
    json.at("sampled").get_to(rollout.sampled);
    json.at("log_probs").get_to(rollout.log_probs);
    json.at("reference").get_to(rollout.reference);
    json.at("values").get_to(rollout.values);
    json.at("advantages").get_to(rollout.advantages);
    json.at("returns").get_to(rollout.returns);
    json.at("score").get_to(rollout.score);
    json.at("advantage").get_to(rollout.advantage);
    for (const Json& step : json.at("step_scores"))
      rollout.step_scores.emplace_back(step.at(0).get<int64_t>(), step.at(1).get<double>());
  } catch (const nlohmann::json::exception& error) {
    fail("{}: expected a rollout, found another value ({})", where, error.what());
  }
  return rollout;
}

}  // namespace qkv
