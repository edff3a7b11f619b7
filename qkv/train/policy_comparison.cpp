#include "qkv/train/policy_comparison.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/log.h"
#include "qkv/models/bundle.h"
#include "qkv/report/page.h"
#include "qkv/train/losses/policy.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

constexpr double kInterval95 = 1.96;

Bundle load_policy(const std::string& base, const std::string& path) {
  if (path.empty()) return load_bundle(base);
  const bool adapter = fs::is_directory(path) && fs::exists(fs::path(path) / "adapter_config.json");
  if (adapter) return load_bundle(base, {.adapters = {{path, 1}}});
  return load_bundle(path);
}

struct Estimate {
  double mean = 0, interval = 0;
};
Estimate estimate(const std::vector<double>& values) {
  const losses::Moments m = losses::moments<double>(values);
  return {m.mean,
          kInterval95 * std::sqrt(m.variance / static_cast<double>(std::max<size_t>(1, values.size())))};
}

double sum(const std::vector<float>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

struct Task {
  Measure measure;
  std::vector<Prompt> prompts;
  Rewards rewards;
  std::vector<double> first;  // the first policy's scores
};

PolicyScore score_policy(const Bundle& policy, const Bundle& first, Task& task,
                         const ComparisonOptions& options) {
  std::vector<const std::vector<int32_t>*> asked;
  for (const Prompt& prompt : task.prompts) asked.push_back(&prompt.tokens);
  RolloutOptions sampling = options.rollout;
  sampling.stop_ids = answer_ends(*policy.tokenizer);
  std::vector<Rollout> rollouts = sample_rollouts(*policy.model, *policy.tokenizer, asked, 1, sampling, 0);
  task.rewards.judge(rollouts, task.prompts, *policy.tokenizer, nullptr);
  score_rollouts(*policy.model, rollouts, options.rollout.temperature, options.rollout.compute_type,
                 options.batch_tokens, nullptr);
  score_reference(*first.model, nullptr, rollouts, options.rollout.temperature, options.rollout.compute_type,
                  options.batch_tokens);
  std::vector<double> scores, gains;
  PolicyScore result;
  for (size_t i = 0; i < rollouts.size(); ++i) {
    double score = rollouts[i].score;
    for (const auto& [token, part] : rollouts[i].step_scores) score += part;
    scores.push_back(score);
    result.divergence += sum(rollouts[i].log_probs) - sum(rollouts[i].reference);
    result.length += static_cast<double>(rollouts[i].tokens.size());
  }
  if (task.first.empty()) task.first = scores;
  for (size_t i = 0; i < scores.size(); ++i) {
    gains.push_back(scores[i] - task.first[i]);
    result.win_rate += gains[i] > 0 ? 1 : gains[i] == 0 ? 0.5 : 0;
  }
  const auto n = static_cast<double>(scores.size());
  const Estimate reward = estimate(scores), gain = estimate(gains);
  result.measure = task.measure.name;
  result.answers = static_cast<int64_t>(scores.size());
  result.reward = reward.mean;
  result.interval = reward.interval;
  result.gain = gain.mean;
  result.gain_interval = gain.interval;
  result.win_rate /= n;
  result.divergence /= n;
  result.length /= n;
  result.prompt = task.prompts[0].text;
  result.answer = rollouts[0].text;
  return result;
}

}  // namespace

NamedPolicy parse_policy(const std::string& text) {
  const size_t equals = text.find('=');
  NamedPolicy policy{text.substr(0, equals), equals == std::string::npos ? "" : text.substr(equals + 1)};
  require(!policy.name.empty(), "--policy: expected NAME or NAME=PATH, found '{}'", text);
  return policy;
}

Measure parse_measure(const std::string& text) {
  const size_t equals = text.find('='), at = text.rfind('@');
  const bool whole = equals != std::string::npos && equals > 0 && at != std::string::npos &&
                     at > equals + 1 && at + 1 < text.size();
  require(whole, "--measure: expected NAME=REWARD@PROMPTS.jsonl, found '{}'", text);
  return {text.substr(0, equals), text.substr(equals + 1, at - equals - 1), text.substr(at + 1)};
}

std::vector<PolicyScore> compare_policies(const std::string& base, const std::vector<NamedPolicy>& policies,
                                          const std::vector<Measure>& measures,
                                          const ComparisonOptions& options) {
  require(!policies.empty(), "comparison: expected policies (--policy NAME=PATH), found none");
  require(!measures.empty(), "comparison: expected measures (--measure NAME=REWARD@FILE), found none");
  std::vector<Task> tasks;
  for (const Measure& measure : measures)
    tasks.push_back({measure,
                     read_prompts(measure.prompts, options.limit),
                     Rewards({measure.reward}, options.judge),
                     {}});
  const Bundle first = load_policy(base, policies[0].path);
  const bool chat =
      options.chat == "yes" || (options.chat == "auto" && first.tokenizer->chat_template().has_value());
  for (Task& task : tasks) {
    const int64_t room = first.model->info().max_positions - options.rollout.max_new_tokens;
    const int64_t dropped = tokenize_prompts(task.prompts, *first.tokenizer, chat, room);
    if (dropped > 0)
      log_warning("{}: {} prompts of more than {} tokens are left out", task.measure.prompts, dropped, room);
  }
  std::vector<PolicyScore> scores;
  for (size_t p = 0; p < policies.size(); ++p) {
    Bundle loaded;
    if (p > 0) loaded = load_policy(base, policies[p].path);
    const Bundle& policy = p > 0 ? loaded : first;
    require(policy.model->info().vocabulary == first.model->info().vocabulary,
            "{}: expected the vocabulary of {}, {} ids, found {}", policies[p].path, policies[0].name,
            first.model->info().vocabulary, policy.model->info().vocabulary);
    for (Task& task : tasks) {
      stop_if_interrupted();
      scores.push_back(score_policy(policy, first, task, options));
      scores.back().policy = policies[p].name;
      log_info("{}: {} {:.3f} (+- {:.3f})", policies[p].name, task.measure.name, scores.back().reward,
               scores.back().interval);
    }
  }
  const auto place = [&](const PolicyScore& score) {
    return std::find_if(measures.begin(), measures.end(),
                        [&](const Measure& measure) { return measure.name == score.measure; });
  };
  std::stable_sort(scores.begin(), scores.end(),
                   [&](const PolicyScore& a, const PolicyScore& b) { return place(a) < place(b); });
  return scores;
}

Json to_json(const PolicyScore& score) {
  return {{"measure", score.measure},
          {"policy", score.policy},
          {"answers", score.answers},
          {"reward", score.reward},
          {"interval", score.interval},
          {"gain", score.gain},
          {"gain_interval", score.gain_interval},
          {"win_rate", score.win_rate},
          {"kl", score.divergence},
          {"length", score.length}};
}

void write_comparison_page(const std::string& path, const std::string& title,
                           const std::vector<PolicyScore>& scores) {
  Page page(title, "Every model answered the same held-out prompts, sampled with the same seeds.");
  Table table;
  table.title = "Scores";
  table.note = "Intervals are of 95 %. Gain, wins and KL are against the first model; KL in nats per answer.";
  table.columns = {{"measure"},       {"model"},      {"reward", true}, {"+-", true},    {"gain", true},
                   {"gain +-", true}, {"wins", true}, {"KL", true},     {"tokens", true}};
  std::vector<std::string> measures;
  for (const PolicyScore& score : scores) {
    if (measures.empty() || measures.back() != score.measure) measures.push_back(score.measure);
    table.rows.push_back({score.measure, score.policy, number_cell(score.reward, 3),
                          number_cell(score.interval, 2), number_cell(score.gain, 3),
                          number_cell(score.gain_interval, 2), number_cell(score.win_rate, 3),
                          number_cell(score.divergence, 3), number_cell(score.length, 3)});
  }
  page.table(table);
  for (const std::string& measure : measures) {
    BarChart rewards{.title = "Reward: " + measure, .value = {.label = "mean reward", .from_zero = true}};
    BarChart divergences{.title = "KL from the first model: " + measure,
                         .value = {.label = "KL", .unit = "nats per answer", .from_zero = true}};
    rewards.width = divergences.width = ChartWidth::half;
    BarChart::Group reward{.name = "reward"}, divergence{.name = "KL"};
    for (const PolicyScore& score : scores) {
      if (score.measure != measure) continue;
      rewards.categories.push_back(score.policy);
      divergences.categories.push_back(score.policy);
      reward.values.push_back(score.reward);
      divergence.values.push_back(score.divergence);
    }
    rewards.groups = {reward};
    divergences.groups = {divergence};
    page.heading(measure);
    page.chart(rewards);
    page.chart(divergences);
    for (const PolicyScore& score : scores) {
      if (score.measure == measure) page.passage(score.policy, score.prompt + " ", score.answer);
    }
  }
  page.write(path);
}

}  // namespace qkv
