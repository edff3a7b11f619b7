#include "qkv/models/score_model.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/registry.h"

namespace qkv {
namespace {

constexpr std::string_view kClass = "ForSequenceClassification";
// What the language models' class names end with instead.
constexpr std::string_view kOthers[] = {"ForCausalLM", "LMHeadModel"};

std::string class_of(const Json& config) {
  const auto names = JsonView(config, "config.json").strings_or_empty("architectures");
  return names.empty() ? "" : names[0];
}

std::string score_class(const std::string& name) {
  for (const std::string_view other : kOthers) {
    if (name.ends_with(other)) return name.substr(0, name.size() - other.size()) + std::string(kClass);
  }
  return name;
}

}  // namespace

bool is_score_config(const Json& config) {
  return class_of(config).ends_with(kClass);
}

Json score_config(const Json& config) {
  Json result = config;
  result["architectures"] = Json::array({score_class(class_of(config))});
  result["num_labels"] = 1;
  result["id2label"] = {{"0", "LABEL_0"}};
  result["label2id"] = {{"LABEL_0", 0}};
  // Transformers looks for the last token that is no padding, so a batch needs to know what padding is.
  if (!result.contains("pad_token_id") || result["pad_token_id"].is_null()) {
    const Json end = result.value("eos_token_id", Json(nullptr));
    result["pad_token_id"] = end.is_array() && !end.empty() ? end[0] : end;
  }
  return result;
}

std::unique_ptr<Model> make_score_model(const Json& config, const std::string& where, bool score_optional) {
  if (const Json* labels = JsonView(config, where).find("id2label");
      labels != nullptr && is_score_config(config)) {
    require(labels->size() == 1, "{}: key 'id2label': expected one label (a score), found {}", where,
            labels->size());
  }
  Json causal = config;
  // A tied head is the embedding: no matrix of its own is asked of the checkpoint, and one that is there is
  // passed over.
  causal["tie_word_embeddings"] = true;
  std::unique_ptr<Model> base = find_architecture(causal, where).make(JsonView(causal, where));
  require(base->info().causal && base->info().tied_embeddings && !base->head_bias().defined(),
          "{}: a score in place of the vocabulary is not implemented for {}", where,
          base->info().architecture);
  Json own = is_score_config(config) ? config : score_config(config);
  if (const std::string name = class_of(own); name.empty() || !name.ends_with(kClass))
    own["architectures"] = Json::array({score_class(base->info().architecture)});
  return std::make_unique<ScoreModel>(std::move(base), own, score_optional);
}

ScoreModel::ScoreModel(std::unique_ptr<Model> base, const Json& config, bool score_optional)
    : base_(std::move(base)),
      source_(std::make_unique<Json>(config)),
      score_optional_(score_optional),
      score_(Tensor::placeholder({1, base_->info().channels})) {}

Tensor ScoreModel::scores(const Tensor& hidden, const ops::PackedSequences& sequences) const {
  std::vector<int64_t> last;
  for (size_t s = 0; s + 1 < sequences.offsets.size(); ++s) {
    require(sequences.offsets[s] < sequences.offsets[s + 1],
            "scores: sequence {}: expected tokens, found none", s);
    last.push_back(sequences.offsets[s + 1] - 1);
  }
  const Tensor y = ops::linear(ops::cast(ops::select_rows(hidden, last), DType::f32), score_);  // (S, 1)
  return ops::reshape(y, {y.rows()});
}

std::vector<WeightRow> ScoreModel::weight_table() const {
  std::vector<WeightRow> table = base_->weight_table();
  table.push_back({"score", "score", "", {.optional = score_optional_}, {.optional = score_optional_}, true});
  return table;
}

Json ScoreModel::hf_config() const {
  Json json = base_->hf_config();
  for (const char* key : {"architectures", "num_labels", "id2label", "label2id", "pad_token_id"})
    if (source_->contains(key)) json[key] = (*source_)[key];
  // As it was before it was made without a head.
  if (source_->contains("tie_word_embeddings")) {
    json["tie_word_embeddings"] = (*source_)["tie_word_embeddings"];
  } else {
    json.erase("tie_word_embeddings");
  }
  return json;
}

void ScoreModel::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  base_->visit(prefix, visitor);
  visitor(prefix + "score.weight", score_);
}

}  // namespace qkv
