#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "qkv/compress/produced_checkpoint.h"
#include "qkv/compress/prune.h"
#include "qkv/compress/stored_model.h"
#include "qkv/core/error.h"
#include "qkv/models/convert.h"
#include "qkv/models/registry.h"
#include "qkv/models/stored_values.h"

namespace qkv {
namespace {

// Those whose configurations in Hugging Face's transformers have a head_dim of their own; elsewhere it is the
// channels over the heads.
constexpr std::string_view kHaveHeadDim[] = {"llama", "mistral", "mixtral",   "qwen2",      "qwen3",
                                             "gemma", "gemma2",  "qwen3_moe", "gemma3_text"};

// What stays of a layer: indices in ascending order.
struct LayerCut {
  std::vector<int64_t> groups;    // of heads with the same keys
  std::vector<int64_t> channels;  // of the network
};

// The `count` indices with the largest scores, ascending; of equals the first.
std::vector<int64_t> best(const std::vector<double>& scores, int64_t count) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

// Sum over inputs of |W[:, first..] x[first..]|^2 = trace(W_p H_pp W_p^T), p the columns [first, first +
// count).
double added_by(const Tensor& weight, const Tensor& products, int64_t first, int64_t count) {
  const int64_t columns = weight.cols();
  const float *w = weight.data<float>(), *h = products.data<float>();
  double sum = 0;
  for (int64_t r = 0; r < weight.rows(); ++r) {
    const float* row = w + r * columns + first;
    for (int64_t i = 0; i < count; ++i) {
      const float* line = h + (first + i) * columns + first;
      double through = 0;
      for (int64_t j = 0; j < count; ++j) through += double{line[j]} * row[j];
      sum += row[i] * through;
    }
  }
  return sum;
}

// 1 - mean cosine, summed up over tokens.
class BlockInfluence {
 public:
  void add(const Tensor& before, const Tensor& after) {
    const Tensor a = before.to(DType::f32), b = after.to(DType::f32);
    const int64_t n = a.cols();
    for (int64_t t = 0; t < a.rows(); ++t) {
      double dot = 0, aa = 0, bb = 0;
      for (int64_t c = 0; c < n; ++c) {
        const double x = a.data<float>()[t * n + c], y = b.data<float>()[t * n + c];
        dot += x * y;
        aa += x * x;
        bb += y * y;
      }
      sum_ += aa > 0 && bb > 0 ? 1 - dot / std::sqrt(aa * bb) : 0;
      ++tokens_;
    }
  }
  double value() const { return tokens_ > 0 ? sum_ / static_cast<double>(tokens_) : 0; }

 private:
  double sum_ = 0;
  int64_t tokens_ = 0;
};

class StructurePruner {
 public:
  StructurePruner(const Checkpoint& source, const StructureOptions& options)
      : options_(options), source_(source), stored_(source), info_(stored_.model().info()) {
    for (const auto& [share, what] :
         {std::pair{options.heads, "heads"}, {options.channels, "channels"}, {options.layers, "layers"}})
      require(share >= 0 && share < 1, "prune: expected a share of {} from 0 to below 1, found {}", what,
              share);
    const BlockConfig& block = stored_.model().config().block;
    const bool plain_attention = !block.latent_attention && !block.mamba && !block.mamba2;
    groups_ = info_.kv_heads;
    per_group_ = info_.heads / info_.kv_heads;
    kept_groups_ = kept(options.heads, groups_, "groups of heads with their keys");
    kept_channels_ = kept(options.channels, info_.hidden, "channels");
    kept_layers_ = kept(options.layers, info_.layers, "layers");
    require(kept_groups_ == groups_ || (plain_attention && block.attention.alibi_slopes.empty() &&
                                        block.attention.qk_norm != AttentionConfig::QkNorm::whole &&
                                        block.attention.qk_norm != AttentionConfig::QkNorm::own_head),
            "prune: expected attention whose heads are alike, found that of {}", info_.architecture);
    require(kept_channels_ == info_.hidden || (!block.mamba && !block.mamba2 && !block.experts),
            "prune: expected a plain feed-forward network, found that of {}", info_.architecture);
    require(kept_groups_ < groups_ || kept_channels_ < info_.hidden || kept_layers_ < info_.layers,
            "prune: expected something to take away, found shares that come to none of {} groups of heads, "
            "{} channels and {} layers",
            groups_, info_.hidden, info_.layers);
  }

  PruneReport write(const std::string& output) {
    measure();
    const HfFiles files = changed_files();
    const Json config = parse_json(files.at("config.json"), "config.json");
    smaller_ = make_model(config, "the pruned model's config.json");
    require_alike();
    fill();

    mappings_ = expand(*smaller_);
    const StoredNames names = StoredNames(Naming::hugging_face);
    const std::vector<StoredGroup> groups = group_by_tensor(mappings_, names);
    std::unordered_map<std::string, Tensor> parameters;
    smaller_->visit("", [&](const std::string& name, Tensor& parameter) { parameters[name] = parameter; });
    std::vector<ProducedTensor> tensors;
    for (const auto& group : groups) {
      const DType type = types_.at(group.parts[0]->parameter);
      tensors.push_back(produced_tensor(group.name, type, group.shape, [&parameters, &group, type] {
        Tensor stored = Tensor::empty(group.shape, type);
        for (const WeightMapping* part : group.parts)
          put_parameter(stored, part->hf, parameters.at(part->parameter).to(type));
        return stored;
      }));
    }
    const ProducedCheckpoint result(source_.path(), std::move(tensors), files);
    PruneReport report;
    report.bytes_before = source_.total_bytes();
    report.bytes = result.total_bytes();
    report.parameters_before = stored_.model().parameter_count();
    report.parameters = smaller_->parameter_count();
    report.removed_layers = removed_;
    report.heads = kept_groups_ * per_group_;
    report.kv_heads = kept_groups_;
    report.hidden = kept_channels_;
    report.layers = kept_layers_;
    report.notes = convert_checkpoint(result, output).notes;
    return report;
  }

 private:
  static int64_t kept(double share, int64_t of, const char* what) {
    const int64_t left = of - static_cast<int64_t>(share * static_cast<double>(of));
    require(left >= 1, "prune: expected at least one of {} {} to stay, found none", of, what);
    return left;
  }

  void measure() {
    Decoder& model = stored_.model();
    const auto layers = static_cast<size_t>(info_.layers);
    cuts_.resize(layers);
    std::vector<BlockInfluence> influence(layers);
    const auto tokenizer = stored_.tokenizer();
    const TokenSequences sequences =
        calibration_sequences(info_, *tokenizer, options_.text, options_.calibration);
    LayerWalk walk(model, sequences,
                   {.with_products = true, .batch_tokens = options_.calibration.batch_tokens});
    walk.observe_layers(
        [&](const Tensor& before, const Tensor& after) { influence[walk.layer()].add(before, after); });
    while (!walk.is_done()) {
      LayerCut& cut = cuts_[walk.layer()];
      walk.step([&](std::vector<SharedInput>& inputs) {
        for (const auto& input : inputs) {
          const std::string& name = input.names[0];
          if (name.ends_with(".attn.out") && kept_groups_ < groups_)
            cut.groups = best(head_scores(input), kept_groups_);
          if (name.ends_with(".mlp.down") && kept_channels_ < info_.hidden)
            cut.channels = best(channel_scores(input), kept_channels_);
        }
      });
      if (options_.progress) options_.progress(walk.layer(), layers);
    }
    std::vector<double> scores;
    for (const auto& layer : influence) scores.push_back(layer.value());
    layers_ = best(scores, kept_layers_);
    for (int64_t i = 0; i < info_.layers; ++i) {
      if (!std::binary_search(layers_.begin(), layers_.end(), i)) removed_.push_back(i);
    }
  }

  std::vector<double> head_scores(const SharedInput& input) const {
    const Tensor weight = matrix_of(*input.linears[0]);
    std::vector<double> scores;
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t width = per_group_ * info_.head_dim;
      scores.push_back(added_by(weight, input.statistics.products(), g * width, width));
    }
    return scores;
  }

  std::vector<double> channel_scores(const SharedInput& input) const {
    const Tensor weight = matrix_of(*input.linears[0]);
    std::vector<double> scores(static_cast<size_t>(weight.cols()));
    for (int64_t r = 0; r < weight.rows(); ++r) {
      for (int64_t c = 0; c < weight.cols(); ++c) {
        const double w = weight.data<float>()[r * weight.cols() + c];
        scores[static_cast<size_t>(c)] += w * w * input.statistics.squares()[static_cast<size_t>(c)];
      }
    }
    return scores;
  }

  // config.json with the sizes that remain, under whichever of the usual keys it has.
  HfFiles changed_files() const {
    HfFiles files = stored_.files();
    Json config = parse_json(files.at("config.json"), "config.json");
    const auto set = [&](std::initializer_list<const char*> keys, int64_t value, int64_t before) {
      bool found = false;
      for (const char* key : keys) {
        if (!config.contains(key)) continue;
        config[key] = value;
        found = true;
      }
      require(found || value == before, "prune: config.json of {}: expected one of the keys {}, found none",
              info_.model_type, fmt::join(keys, ", "));
    };
    if (kept_groups_ < groups_) {
      require(
          std::count(std::begin(kHaveHeadDim), std::end(kHaveHeadDim), info_.model_type) > 0,
          "prune: the configuration of {} cannot say that {} heads of {} dimensions remain of {} channels",
          info_.model_type, kept_groups_ * per_group_, info_.head_dim, info_.channels);
      set({"num_attention_heads", "n_head", "n_heads"}, kept_groups_ * per_group_, info_.heads);
      if (config.contains("num_key_value_heads") || per_group_ > 1)
        set({"num_key_value_heads"}, kept_groups_, info_.kv_heads);
      config["head_dim"] = info_.head_dim;  // no longer channels / heads
    }
    if (kept_channels_ < info_.hidden) {
      if (!config.contains("intermediate_size") && !config.contains("ffn_dim") && config.contains("n_embd"))
        config["n_inner"] = kept_channels_;  // GPT-2's default is 4 times the channels
      else
        set({"intermediate_size", "ffn_dim", "n_inner"}, kept_channels_, info_.hidden);
    }
    if (kept_layers_ < info_.layers) {
      set({"num_hidden_layers", "n_layer", "n_layers"}, kept_layers_, info_.layers);
      const auto types = config.find("layer_types");
      if (types != config.end() && types->is_array() && static_cast<int64_t>(types->size()) == info_.layers) {
        Json left = Json::array();
        for (const int64_t layer : layers_) left.push_back((*types)[static_cast<size_t>(layer)]);
        *types = left;
      }
    }
    files["config.json"] = dump_json(config, 2) + "\n";
    return files;
  }

  // Layers that the configuration tells apart (by windows or angles) must be the same ones after the others
  // moved up.
  void require_alike() const {
    const auto& now = dynamic_cast<const Decoder&>(*smaller_).config().layers;
    const auto& before = stored_.model().config().layers;
    const ModelInfo& info = smaller_->info();
    require(info.heads == kept_groups_ * per_group_ && info.kv_heads == kept_groups_ &&
                info.head_dim == info_.head_dim && info.hidden == kept_channels_ &&
                info.layers == kept_layers_,
            "prune: the configuration of {} cannot say that {} heads of {} dimensions and {} channels remain",
            info_.model_type, kept_groups_ * per_group_, info_.head_dim, kept_channels_);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const auto at = static_cast<size_t>(layers_[i]);
      const LayerVariant was = before.empty() ? LayerVariant{} : before[at],
                         is = now.empty() ? LayerVariant{} : now[i];
      require((before.empty() && now.empty()) ||
                  (was.window == is.window && was.rope == is.rope && was.dense == is.dense),
              "prune: layers of {} take turns with windows or networks, and layer {} would get another "
              "kind's place",
              info_.model_type, at);
    }
  }

  // Elements of groups of `size` that stay.
  static std::vector<int64_t> expanded(const std::vector<int64_t>& kept, int64_t size) {
    std::vector<int64_t> indices;
    for (const int64_t index : kept)
      for (int64_t i = 0; i < size; ++i) indices.push_back(index * size + i);
    return indices;
  }

  static Tensor select(const Tensor& values, const std::optional<std::vector<int64_t>>& rows,
                       const std::optional<std::vector<int64_t>>& columns) {
    const bool vector = values.shape().rank() == 1;
    const int64_t width = vector ? 1 : values.cols();
    const int64_t height = vector ? values.elements() : values.rows();
    const int64_t new_height = rows ? static_cast<int64_t>(rows->size()) : height;
    const int64_t new_width = columns ? static_cast<int64_t>(columns->size()) : width;
    Tensor result = Tensor::empty(vector ? Shape{new_height} : Shape{new_height, new_width});
    for (int64_t r = 0; r < new_height; ++r) {
      const float* from = values.data<float>() + (rows ? (*rows)[static_cast<size_t>(r)] : r) * width;
      for (int64_t c = 0; c < new_width; ++c)
        result.data<float>()[r * new_width + c] = from[columns ? (*columns)[static_cast<size_t>(c)] : c];
    }
    return result;
  }

  // What stays of the parameter with this role in its block.
  Tensor cut(const std::string& role, const Tensor& values, const LayerCut& layer) const {
    const bool heads = !layer.groups.empty(), channels = !layer.channels.empty();
    if (heads && (role == "attn.q.weight" || role == "attn.q.bias"))
      return select(values, expanded(layer.groups, per_group_ * info_.head_dim), {});
    if (heads && (role == "attn.k.weight" || role == "attn.k.bias" || role == "attn.v.weight" ||
                  role == "attn.v.bias"))
      return select(values, expanded(layer.groups, info_.head_dim), {});
    if (heads && role == "attn.out.weight")
      return select(values, {}, expanded(layer.groups, per_group_ * info_.head_dim));
    if (channels && (role == "mlp.gate.weight" || role == "mlp.gate.bias" || role == "mlp.up.weight" ||
                     role == "mlp.up.bias"))
      return select(values, layer.channels, {});
    if (channels && role == "mlp.down.weight") return select(values, {}, layer.channels);
    return values;
  }

  // The smaller model's parameters out of the larger one's, in its stored types.
  void fill() {
    std::unordered_map<std::string, DType> types;
    for (const auto& group : stored_.groups())
      for (const WeightMapping* part : group.parts) types[part->parameter] = stored_.type_of(group);
    smaller_->visit("", [&](const std::string& name, Tensor& parameter) {
      const int64_t layer = layer_of(name);
      std::string original = name, role;
      if (layer >= 0) {
        role = name.substr(name.find('.', name.find('.') + 1) + 1);
        original = fmt::format("blocks.{}.{}", layers_[static_cast<size_t>(layer)], role);
      }
      const auto type = types.find(original);
      types_[name] = type == types.end() ? DType::f32 : type->second;
      Tensor values = stored_.parameter(original);
      if (layer >= 0) {
        const LayerCut& cuts = cuts_[static_cast<size_t>(layers_[static_cast<size_t>(layer)])];
        if (!cuts.groups.empty() || !cuts.channels.empty()) values = cut(role, values.to(DType::f32), cuts);
      }
      require(values.shape() == parameter.shape(),
              "prune: parameter '{}': expected {} after pruning, found {}", name, parameter.shape().str(),
              values.shape().str());
      parameter = values;
    });
  }

  const StructureOptions& options_;
  const Checkpoint& source_;
  StoredModel stored_;
  ModelInfo info_;
  int64_t groups_ = 0, per_group_ = 1, kept_groups_ = 0, kept_channels_ = 0, kept_layers_ = 0;
  std::vector<LayerCut> cuts_;  // of every layer of the source
  std::vector<int64_t> layers_, removed_;
  std::unique_ptr<Model> smaller_;
  std::vector<WeightMapping> mappings_;
  std::unordered_map<std::string, DType> types_;
};

}  // namespace

PruneReport prune_structure(const std::string& input, const std::string& output,
                            const StructureOptions& options) {
  const auto source = open_checkpoint(input);
  return StructurePruner(*source, options).write(output);
}

}  // namespace qkv
