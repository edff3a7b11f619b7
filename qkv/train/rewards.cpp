#include "qkv/train/rewards.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/data/tales.h"
#include "qkv/text/regex.h"
#include "qkv/train/losses/policy.h"

namespace qkv {
namespace {

// A reward that looks at one answer at a time.
class EachReward : public Reward {
 public:
  std::vector<double> score(std::span<const Judged> answers) const override {
    std::vector<double> scores;
    for (const Judged& answer : answers) scores.push_back(score_one(answer));
    return scores;
  }
  virtual double score_one(const Judged& answer) const = 0;
};

class ExactReward : public EachReward {
 public:
  double score_one(const Judged& answer) const override {
    const JsonView record(*answer.prompt->record, answer.prompt->where);
    std::vector<std::string> accepted = record.strings_or_empty("accepted");
    bool numeric = record.boolean_or("numeric", false);
    if (accepted.empty()) {
      const Json* value = record.find("answer");
      require(value != nullptr && (value->is_string() || value->is_number()),
              "{}: answer: expected a text or a number for the reward 'exact', found {}",
              answer.prompt->where, value == nullptr ? "none" : value->type_name());
      accepted = {value->is_string() ? value->get<std::string>() : dump_json(*value)};
      double number = 0;
      const std::string& text = accepted.front();
      const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
      numeric = code == std::errc() && end == text.data() + text.size();
    }
    return tales::matches_answer(accepted, numeric, answer.completion) ? 1 : 0;
  }
};

class RegexReward : public EachReward {
 public:
  explicit RegexReward(const std::string& pattern) : regex_(pattern, "reward 'regex'") {}
  double score_one(const Judged& answer) const override {
    Regex::Scratch scratch;
    return regex_.find(answer.completion, 0, scratch) ? 1 : 0;
  }

 private:
  Regex regex_;
};

class JsonReward : public EachReward {
 public:
  double score_one(const Judged& answer) const override {
    std::string_view text = answer.completion;
    const auto trim = [&] {
      constexpr std::string_view kSpace = " \t\r\n";
      const size_t begin = text.find_first_not_of(kSpace);
      text = begin == std::string_view::npos ? std::string_view()
                                             : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
    };
    trim();
    if (text.starts_with("```") && text.ends_with("```") && text.size() >= 6) {
      text = text.substr(3, text.size() - 6);
      if (text.starts_with("json")) text.remove_prefix(4);
      trim();
    }
    try {
      parse_json(text, "answer");
      return 1;
    } catch (const Error&) {
      return 0;
    }
  }
};

struct Range {
  double low = 0, high = 0;
};

Range parse_range(const std::string& text, const std::string& where, const char* form) {
  Range range;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, range.low);
  const bool dash = first.ec == std::errc() && first.ptr != end && *first.ptr == '-';
  const auto second = dash ? std::from_chars(first.ptr + 1, end, range.high)
                           : std::from_chars_result{end, std::errc::invalid_argument};
  require(dash && second.ec == std::errc() && second.ptr == end && range.low >= 0 &&
              range.high >= range.low && range.high > 0 && std::isfinite(range.high),
          "reward '{}': expected {}, found '{}'", where, form, text);
  return range;
}

class LengthReward : public EachReward {
 public:
  explicit LengthReward(const std::string& argument) : range_(parse_range(argument, "length", "LOW-HIGH")) {}
  double score_one(const Judged& answer) const override {
    const auto n = static_cast<double>(answer.tokens);
    const double outside = std::max({0.0, range_.low - n, n - range_.high});
    return std::max(0.0, 1 - outside / range_.high);
  }

 private:
  Range range_;
};

class OverlongReward : public EachReward {
 public:
  explicit OverlongReward(const std::string& argument)
      : range_(parse_range(argument, "overlong", "SOFT-MAX")) {}
  double score_one(const Judged& answer) const override {
    const auto n = static_cast<double>(answer.tokens);
    if (n <= range_.low) return 0;
    return n >= range_.high ? -1 : -(n - range_.low) / (range_.high - range_.low);
  }

 private:
  Range range_;
};

const std::vector<std::string> kKinds = {"exact", "regex", "json", "length", "overlong", "model", "program"};

std::unique_ptr<Reward> make_reward(const std::string& kind, const std::string& argument,
                                    const JudgeOptions& options, const std::string& text) {
  const bool bare = kind == "exact" || kind == "json";
  require(bare == argument.empty(), "reward '{}': expected {}, found {}", text,
          bare ? "no argument" : kind + "=ARGUMENT", bare ? "one" : "none");
  if (kind == "exact") return std::make_unique<ExactReward>();
  if (kind == "regex") return std::make_unique<RegexReward>(argument);
  if (kind == "json") return std::make_unique<JsonReward>();
  if (kind == "length") return std::make_unique<LengthReward>(argument);
  if (kind == "overlong") return std::make_unique<OverlongReward>(argument);
  if (kind == "program") return make_program_reward(argument, options.program_timeout);
  std::vector<std::string> paths;
  for (size_t begin = 0; begin <= argument.size();) {
    const size_t end = std::min(argument.find(',', begin), argument.size());
    if (end > begin) paths.push_back(argument.substr(begin, end - begin));
    begin = end + 1;
  }
  return make_model_reward(paths, options.ensemble, options.ensemble_penalty);
}

WeightedReward parse_reward(const std::string& text, const JudgeOptions& options) {
  WeightedReward result;
  std::string rest = text;
  // A weight is a number before the first '*' that comes before the argument.
  const size_t star = rest.find('*');
  if (star != std::string::npos && star < rest.find('=')) {
    const char* end = rest.data() + star;
    const auto [stop, code] = std::from_chars(rest.data(), end, result.weight);
    require(code == std::errc() && stop == end && std::isfinite(result.weight),
            "reward '{}': expected WEIGHT*KIND with a number, found '{}'", text, rest.substr(0, star));
    rest = rest.substr(star + 1);
  }
  constexpr std::string_view kSteps = "steps:";
  if (rest.starts_with(kSteps)) {
    result.steps = true;
    rest = rest.substr(kSteps.size());
  }
  const size_t equals = rest.find('=');
  result.name = rest.substr(0, equals);
  require(std::find(kKinds.begin(), kKinds.end(), result.name) != kKinds.end(),
          "reward '{}': expected one of {}, found '{}'{}", text, fmt::join(kKinds, ", "), result.name,
          suggestion(result.name, kKinds));
  result.reward =
      make_reward(result.name, equals == std::string::npos ? "" : rest.substr(equals + 1), options, text);
  return result;
}

}  // namespace

std::vector<StepEnd> step_ends(const Rollout& rollout, const Tokenizer& tokenizer,
                               const std::string& separator) {
  std::vector<StepEnd> ends;
  std::string text;
  size_t begin = 0;  // of the step
  const auto n = static_cast<int64_t>(rollout.tokens.size());
  for (int64_t t = 0; t < n; ++t) {
    const int32_t token = rollout.tokens[static_cast<size_t>(t)];
    if (!tokenizer.is_special(token)) text += tokenizer.token_bytes(token);
    const size_t found = separator.empty() ? std::string::npos : text.find(separator, begin);
    const bool step = found != std::string::npos && found + separator.size() <= text.size() &&
                      text.find_first_not_of(" \t\r\n", begin) < found;
    if (!step && t + 1 < n) continue;
    ends.push_back({t, text});
    begin = text.size();
  }
  // The separator at the very end makes no further step of what closes the answer.
  if (ends.size() > 1 &&
      text.find_first_not_of(" \t\r\n", ends[ends.size() - 2].text.size()) == std::string::npos) {
    ends[ends.size() - 2].token = ends.back().token;
    ends.pop_back();
  }
  return ends;
}

Rewards::Rewards(const std::vector<std::string>& specifications, const JudgeOptions& options)
    : options_(options) {
  require(!specifications.empty(), "rewards: expected at least one (exact, regex=PATTERN, ...), found none");
  std::map<std::string, int> seen;
  for (const std::string& text : specifications) {
    WeightedReward reward = parse_reward(text, options);
    if (const int count = ++seen[reward.name]; count > 1) reward.name += std::to_string(count);
    rewards_.push_back(std::move(reward));
  }
}

bool Rewards::any_steps() const {
  return std::any_of(rewards_.begin(), rewards_.end(), [](const WeightedReward& one) { return one.steps; });
}

void Rewards::judge(std::span<Rollout> rollouts, const std::vector<Prompt>& prompts,
                    const Tokenizer& tokenizer, Metrics* metrics) const {
  std::vector<std::vector<StepEnd>> steps;
  if (any_steps()) {
    for (const Rollout& rollout : rollouts)
      steps.push_back(step_ends(rollout, tokenizer, options_.step_separator));
  }
  for (Rollout& rollout : rollouts) {
    rollout.score = 0;
    rollout.step_scores.clear();
  }
  for (const WeightedReward& one : rewards_) {
    std::vector<Judged> judged;
    for (size_t i = 0; i < rollouts.size(); ++i) {
      const Rollout& rollout = rollouts[i];
      const Prompt* prompt = &prompts.at(rollout.prompt);
      if (one.steps) {
        for (const StepEnd& end : steps[i]) judged.push_back({prompt, end.text, end.token + 1});
      } else {
        judged.push_back({prompt, rollout.text, static_cast<int64_t>(rollout.tokens.size())});
      }
    }
    const std::vector<double> scores = one.reward->score(judged);
    require(scores.size() == judged.size(), "reward '{}': expected {} scores, found {}", one.name,
            judged.size(), scores.size());
    const losses::Moments m = losses::moments<double>(scores);
    if (metrics != nullptr) {
      metrics->add("rewards/" + one.name + "/mean", m.mean, 1);
      metrics->add("rewards/" + one.name + "/std", std::sqrt(m.variance), 1);
    }
    size_t at = 0;
    for (size_t i = 0; i < rollouts.size(); ++i) {
      if (!one.steps) {
        rollouts[i].score += one.weight * scores[at++];
        continue;
      }
      for (const StepEnd& end : steps[i])
        rollouts[i].step_scores.emplace_back(end.token, one.weight * scores[at++]);
    }
  }
}

}  // namespace qkv
