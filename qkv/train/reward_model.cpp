// Reward models as a reward: sequence classifiers read the conversation as they were trained to, each with
// its own vocabulary and template. Several disagree where none of them knows: Coste et al., arXiv 2310.02743.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "qkv/core/error.h"
#include "qkv/data/chat_tokens.h"
#include "qkv/data/sample_batches.h"
#include "qkv/models/bundle.h"
#include "qkv/models/score_model.h"
#include "qkv/tensor/autograd.h"
#include "qkv/train/losses/policy.h"
#include "qkv/train/rewards.h"

namespace qkv {
namespace {

constexpr int64_t kBatchTokens = 4096;

class Judge {
 public:
  explicit Judge(const std::string& path)
      : path_(path),
        bundle_(load_bundle(path)),
        model_(dynamic_cast<const ScoreModel*>(bundle_.model.get())) {
    require(model_ != nullptr, "reward 'model': {}: expected a sequence classifier with one score, found {}",
            path, bundle_.model->info().architecture);
    tokens_.emplace(*bundle_.tokenizer);
  }

  std::vector<double> score(std::span<const Judged> answers) const {
    const NoGrad off;
    std::vector<double> scores;
    Batch batch;
    const auto flush = [&] {
      if (batch.tokens.empty()) return;
      const Tensor hidden = model_->forward(batch.tokens, batch.pass);
      for (const float score : model_->scores(hidden, batch.pass.sequences).to_floats())
        scores.push_back(score);
      batch = {};
    };
    for (const Judged& answer : answers) {
      const TokenSample sample = read(answer);
      if (static_cast<int64_t>(batch.tokens.size() + sample.tokens.size()) > kBatchTokens) flush();
      append_sample(batch, sample);
    }
    flush();
    return scores;
  }

 private:
  TokenSample read(const Judged& answer) const {
    TokenSample sample;
    if (answer.completion.find_first_not_of(" \t\r\n") == std::string_view::npos) {
      // Templates cannot say nothing: what is judged ends where the answer would begin.
      std::vector<Prompt> alone = {*answer.prompt};
      tokenize_prompts(alone, *bundle_.tokenizer, is_chat(), model_->info().max_positions);
      sample.tokens = alone[0].tokens;
      sample.learned.assign(sample.tokens.size(), 0);
      return sample;
    }
    Record record;
    record.where = answer.prompt->where;
    record.prompt = answer.prompt->said;
    record.answer.text = std::string(answer.completion);
    if (record.prompt.is_chat()) {
      record.answer.messages = std::make_shared<const Json>(
          Json::array({{{"role", "assistant"}, {"content", record.answer.text}}}));
    } else if (is_chat()) {
      record = as_chat(std::move(record));
    }
    sample = tokens_->sample(record);
    const int64_t positions = model_->info().max_positions;
    require(static_cast<int64_t>(sample.tokens.size()) <= positions,
            "reward 'model': {}: expected at most its {} positions, found a conversation of {} tokens", path_,
            positions, sample.tokens.size());
    return sample;
  }
  bool is_chat() const { return bundle_.tokenizer->chat_template().has_value(); }

  std::string path_;
  Bundle bundle_;
  const ScoreModel* model_;
  std::optional<ChatTokens> tokens_;
};

class ModelReward : public Reward {
 public:
  ModelReward(const std::vector<std::string>& paths, const std::string& ensemble, double penalty)
      : ensemble_(ensemble), penalty_(penalty) {
    for (const std::string& path : paths) judges_.push_back(std::make_unique<Judge>(path));
  }

  std::vector<double> score(std::span<const Judged> answers) const override {
    std::vector<std::vector<double>> all;
    for (const auto& judge : judges_) all.push_back(judge->score(answers));
    std::vector<double> scores, opinions(judges_.size());
    for (size_t i = 0; i < answers.size(); ++i) {
      for (size_t j = 0; j < all.size(); ++j) opinions[j] = all[j][i];
      scores.push_back(combined_scores(opinions, ensemble_, penalty_));
    }
    return scores;
  }

 private:
  std::vector<std::unique_ptr<Judge>> judges_;
  std::string ensemble_;
  double penalty_;
};

}  // namespace

double combined_scores(std::span<const double> opinions, const std::string& ensemble, double penalty) {
  if (ensemble == "min") return *std::min_element(opinions.begin(), opinions.end());
  const losses::Moments m = losses::moments<double>(opinions);
  return ensemble == "uncertainty" ? m.mean - penalty * m.variance : m.mean;
}

std::unique_ptr<Reward> make_model_reward(const std::vector<std::string>& paths, const std::string& ensemble,
                                          double penalty) {
  return std::make_unique<ModelReward>(paths, ensemble, penalty);
}

}  // namespace qkv
