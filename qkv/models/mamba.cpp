// State-space models: Mamba (Gu & Dao, arXiv 2312.00752), FalconMamba (Zuo et al., arXiv 2410.05355) and
// Mamba-2 (Dao & Gu, arXiv 2405.21060). Blocks are a norm and a mixer, without attention, feed-forward
// network or positions; the residual stream is f32.
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/decoder.h"
#include "qkv/models/families.h"
#include "qkv/models/hf_config.h"

namespace qkv {
namespace {

// Nothing in the model depends on a length; this is what llama.cpp writes.
constexpr int64_t kMaxPositions = 1 << 20;

// What both generations share. `tied`: whether the head is the embedding if the configuration does not say.
DecoderConfig base_config(const JsonView& config, const char* model_type, const char* hf_class, bool tied) {
  DecoderConfig result;
  ModelInfo& info = result.info;
  info.architecture = hf_class;
  info.model_type = model_type;
  info.vocabulary = positive(config, "vocab_size");
  info.channels = positive(config, "hidden_size");
  info.layers = positive(config, "num_hidden_layers", 10000);
  info.max_positions = kMaxPositions;
  info.tied_embeddings = config.boolean_or("tie_word_embeddings", tied);
  const Activation activation = activation_of(config, "hidden_act", "silu");
  require(activation == Activation::silu,
          "{}: key 'hidden_act': expected silu, found {}; others are not implemented", config.where(),
          activation_name(activation));
  result.block.norm.eps = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5));
  result.block.attention.channels = info.channels;
  result.final_norm = result.block.norm;
  result.f32_residual = config.boolean_or("residual_in_fp32", true);
  return result;
}

// Channels of the mixers: "intermediate_size", or "expand" times the model's.
int64_t inner_size(const JsonView& config, int64_t channels) {
  if (config.has("intermediate_size")) return positive(config, "intermediate_size");
  const double expand = config.number_or("expand", 2);
  const double inner = expand * static_cast<double>(channels);
  require(inner >= 1 && inner <= 1e9, "{}: key 'expand': expected a factor of the {} channels, found {}",
          config.where(), channels, expand);
  return static_cast<int64_t>(inner);
}

// "auto", or absent: a sixteenth of the channels.
int64_t step_rank(const JsonView& config, int64_t channels) {
  const Json* value = config.find("time_step_rank");
  if (value == nullptr || (value->is_string() && *value == "auto")) return (channels + 15) / 16;
  return positive(config, "time_step_rank");
}

void append(std::vector<WeightRow>& rows, const std::vector<WeightRow>& more) {
  rows.insert(rows.end(), more.begin(), more.end());
}

// ---- Mamba, FalconMamba ----

DecoderConfig read_mamba(const JsonView& config, const char* model_type, const char* hf_class,
                         bool normalized) {
  DecoderConfig result = base_config(config, model_type, hf_class, true);
  MambaConfig mamba;
  mamba.channels = result.info.channels;
  mamba.inner = inner_size(config, mamba.channels);
  mamba.states = positive_or(config, "state_size", 16, 65536);
  mamba.taps = positive_or(config, "conv_kernel", 4, 1024);
  mamba.dt_rank = step_rank(config, mamba.channels);
  mamba.bias = config.boolean_or("use_bias", false);
  mamba.conv_bias = config.boolean_or("use_conv_bias", true);
  mamba.normalized = normalized;
  mamba.normalized_eps = static_cast<float>(config.number_or("mixer_rms_eps", 1e-6));
  result.block.mamba = mamba;
  result.info.hidden = mamba.inner;
  return result;
}

DecoderConfig mamba_config(const JsonView& config) {
  return read_mamba(config, "mamba", "MambaForCausalLM", false);
}
DecoderConfig falcon_mamba_config(const JsonView& config) {
  return read_mamba(config, "falcon_mamba", "FalconMambaForCausalLM", true);
}

// What lies alike in both generations. The first convolution weight is (channels, 1, taps).
std::vector<WeightRow> shared_rows(int64_t convolved, int64_t taps) {
  const Placement plain, conv = {.shape = {convolved, 1, taps}};
  return {
      {"embed", "backbone.embeddings", "token_embd"},
      {"blocks.{}.ssm_norm", "backbone.layers.{}.norm", "blk.{}.attn_norm"},
      {"blocks.{}.ssm.conv.weight", "backbone.layers.{}.mixer.conv1d", "blk.{}.ssm_conv1d", conv, plain,
       true},
      {"blocks.{}.ssm.conv", "backbone.layers.{}.mixer.conv1d", "blk.{}.ssm_conv1d"},
      {"blocks.{}.ssm.out", "backbone.layers.{}.mixer.out_proj", "blk.{}.ssm_out"},
      {"norm", "backbone.norm_f", "output_norm"},
      {"head", "lm_head", "output"},
  };
}

std::vector<WeightRow> mamba_table(const DecoderConfig& config) {
  const MambaConfig& mamba = *config.block.mamba;
  std::vector<WeightRow> rows = shared_rows(mamba.inner, mamba.taps);
  const Placement plain, first, second = {.offset = mamba.inner}, rates = {.values = StoredValues::minus_exp};
  append(rows, {{"blocks.{}.ssm.in", "backbone.layers.{}.mixer.in_proj", "blk.{}.ssm_in", first, first},
                {"blocks.{}.ssm.gate", "backbone.layers.{}.mixer.in_proj", "blk.{}.ssm_in", second, second},
                {"blocks.{}.ssm.parameters", "backbone.layers.{}.mixer.x_proj", "blk.{}.ssm_x"},
                {"blocks.{}.ssm.dt", "backbone.layers.{}.mixer.dt_proj", "blk.{}.ssm_dt"},
                {"blocks.{}.ssm.a_log", "backbone.layers.{}.mixer.A_log", "blk.{}.ssm_a", plain, rates, true},
                {"blocks.{}.ssm.skip", "backbone.layers.{}.mixer.D", "blk.{}.ssm_d"}});
  return rows;
}

// ---- Mamba-2 ----

DecoderConfig mamba2_config(const JsonView& config) {
  DecoderConfig result = base_config(config, "mamba2", "Mamba2ForCausalLM", false);
  Mamba2Config mamba;
  mamba.channels = result.info.channels;
  mamba.heads = positive_or(config, "num_heads", 128, 65536);
  mamba.head_dim = positive_or(config, "head_dim", 64, 65536);
  mamba.states = positive_or(config, "state_size", 128, 65536);
  mamba.groups = positive_or(config, "n_groups", 8, 65536);
  mamba.taps = positive_or(config, "conv_kernel", 4, 1024);
  mamba.bias = config.boolean_or("use_bias", false);
  mamba.conv_bias = config.boolean_or("use_conv_bias", true);
  mamba.norm_eps = result.block.norm.eps;
  const int64_t inner = inner_size(config, mamba.channels);
  require(inner == mamba.inner(), "{}: num_heads {} times head_dim {} are not the {} channels of the mixers",
          config.where(), mamba.heads, mamba.head_dim, inner);
  require(mamba.heads % mamba.groups == 0, "{}: num_heads {} is not a multiple of n_groups {}",
          config.where(), mamba.heads, mamba.groups);
  if (const Json* limit = config.find("time_step_limit")) {
    require(limit->is_array() && limit->size() == 2 && (*limit)[0].is_number() && (*limit)[1].is_number() &&
                (*limit)[0].get<double>() <= (*limit)[1].get<double>(),
            "{}: key 'time_step_limit': expected two numbers in order, found {}", config.where(),
            dump_json(*limit));
    mamba.least_step = (*limit)[0].get<float>();
    mamba.most_step = (*limit)[1].get<float>();
  }
  result.block.mamba2 = mamba;
  result.info.hidden = mamba.inner();
  return result;
}

// GGUF keeps one number per head as (heads, 1), and the norm's gains group by group.
std::vector<WeightRow> mamba2_table(const DecoderConfig& config) {
  const Mamba2Config& mamba = *config.block.mamba2;
  std::vector<WeightRow> rows = shared_rows(mamba.convolved(), mamba.taps);
  const Placement plain, gate, in = {.offset = mamba.inner()},
                               dt = {.offset = mamba.inner() + mamba.convolved()};
  const Placement rates = {.values = StoredValues::minus_exp, .shape = {mamba.heads, 1}},
                  heads = {.shape = {mamba.heads, 1}};
  const Placement grouped = {.shape = {mamba.groups, mamba.inner() / mamba.groups}};
  append(rows, {{"blocks.{}.ssm.gate", "backbone.layers.{}.mixer.in_proj", "blk.{}.ssm_in", gate, gate},
                {"blocks.{}.ssm.in", "backbone.layers.{}.mixer.in_proj", "blk.{}.ssm_in", in, in},
                {"blocks.{}.ssm.dt_in", "backbone.layers.{}.mixer.in_proj", "blk.{}.ssm_in", dt, dt},
                {"blocks.{}.ssm.dt", "backbone.layers.{}.mixer.dt_bias!", "blk.{}.ssm_dt"},
                {"blocks.{}.ssm.a_log", "backbone.layers.{}.mixer.A_log", "blk.{}.ssm_a", plain, rates},
                {"blocks.{}.ssm.skip", "backbone.layers.{}.mixer.D", "blk.{}.ssm_d", plain, heads},
                {"blocks.{}.ssm.norm", "backbone.layers.{}.mixer.norm", "blk.{}.ssm_norm", plain, grouped}});
  return rows;
}

// ---- GGUF ----

void write_shared_keys(const DecoderConfig& config, const std::string& prefix, int64_t inner, int64_t states,
                       int64_t taps, int64_t rank, Metadata& metadata) {
  const auto set = [&](const char* key, int64_t value) {
    metadata.set(prefix + key, static_cast<uint32_t>(value));
  };
  set("vocab_size", config.info.vocabulary);
  set("context_length", config.info.max_positions);
  set("embedding_length", config.info.channels);
  set("feed_forward_length", 0);
  set("attention.head_count", 0);
  set("block_count", config.info.layers);
  set("ssm.conv_kernel", taps);
  set("ssm.inner_size", inner);
  set("ssm.state_size", states);
  set("ssm.time_step_rank", rank);
  metadata.set(prefix + "attention.layer_norm_rms_epsilon", config.block.norm.eps);
}

template <DecoderConfig (*read)(const JsonView&)>
void mamba_to_gguf(const JsonView& config, Metadata& metadata) {
  const DecoderConfig decoder = read(config);
  const MambaConfig& mamba = *decoder.block.mamba;
  write_shared_keys(decoder, "mamba.", mamba.inner, mamba.states, mamba.taps, mamba.dt_rank, metadata);
  metadata.set("mamba.ssm.dt_b_c_rms", mamba.normalized);
}

void mamba2_to_gguf(const JsonView& config, Metadata& metadata) {
  const DecoderConfig decoder = mamba2_config(config);
  const Mamba2Config& mamba = *decoder.block.mamba2;
  require(mamba.least_step <= 0 && std::isinf(mamba.most_step),
          "{}: key 'time_step_limit': GGUF has no place for {} to {}", config.where(), mamba.least_step,
          mamba.most_step);
  write_shared_keys(decoder, "mamba2.", mamba.inner(), mamba.states, mamba.taps, mamba.heads, metadata);
  metadata.set("mamba2.ssm.group_count", static_cast<uint32_t>(mamba.groups));
}

Json read_shared_keys(const std::string& prefix, const char* model_type, const char* hf_class,
                      const Metadata& metadata, const Checkpoint& checkpoint) {
  const auto has = [&](const char* tensor) { return checkpoint.find(tensor) != nullptr; };
  const TensorEntry* embedding = checkpoint.find("token_embd.weight");
  require(embedding != nullptr && embedding->shape.rank() == 2,
          "{}: tensor 'token_embd.weight': expected a matrix, found {}", checkpoint.path(),
          embedding == nullptr ? "none" : embedding->shape.str());
  Json config;
  config["architectures"] = {hf_class};
  config["model_type"] = model_type;
  config["vocab_size"] = embedding->shape[0];
  config["hidden_size"] = metadata.integer(prefix + "embedding_length");
  config["num_hidden_layers"] = metadata.integer(prefix + "block_count");
  config["intermediate_size"] = metadata.integer(prefix + "ssm.inner_size");
  config["state_size"] = metadata.integer(prefix + "ssm.state_size");
  config["conv_kernel"] = metadata.integer(prefix + "ssm.conv_kernel");
  config["layer_norm_epsilon"] = metadata.number(prefix + "attention.layer_norm_rms_epsilon");
  config["hidden_act"] = "silu";
  config["residual_in_fp32"] = true;
  config["use_bias"] = has("blk.0.ssm_in.bias");
  config["use_conv_bias"] = has("blk.0.ssm_conv1d.bias");
  config["tie_word_embeddings"] = !has("output.weight");
  const JsonView view(config, checkpoint.path());
  config["expand"] = static_cast<double>(positive(view, "intermediate_size")) /
                     static_cast<double>(positive(view, "hidden_size"));
  return config;
}

template <bool normalized>
Json mamba_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  if (metadata.boolean_or("mamba.ssm.dt_b_c_rms", false) != normalized) return nullptr;
  Json config =
      read_shared_keys("mamba.", normalized ? "falcon_mamba" : "mamba",
                       normalized ? "FalconMambaForCausalLM" : "MambaForCausalLM", metadata, checkpoint);
  config["time_step_rank"] = metadata.integer("mamba.ssm.time_step_rank");
  return config;
}

Json mamba2_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  Json config = read_shared_keys("mamba2.", "mamba2", "Mamba2ForCausalLM", metadata, checkpoint);
  const int64_t heads = metadata.integer("mamba2.ssm.time_step_rank"),
                inner = config["intermediate_size"].get<int64_t>();
  require(heads >= 1 && inner % heads == 0,
          "{}: key 'mamba2.ssm.time_step_rank': expected heads that divide {} channels, found {}",
          checkpoint.path(), inner, heads);
  config["num_heads"] = heads;
  config["head_dim"] = inner / heads;
  config["n_groups"] = metadata.integer_or("mamba2.ssm.group_count", 1);
  return config;
}

template <DecoderConfig (*read)(const JsonView&), std::vector<WeightRow> (*table)(const DecoderConfig&)>
std::unique_ptr<Model> make(const JsonView& json) {
  const DecoderConfig config = read(json);
  return std::make_unique<Decoder>(config, table(config), json.json());
}

constexpr Architecture kRows[] = {
    {"mamba", "MambaForCausalLM", "mamba", make<mamba_config, mamba_table>, mamba_to_gguf<mamba_config>,
     mamba_from_gguf<false>},
    {"falcon_mamba", "FalconMambaForCausalLM", "mamba", make<falcon_mamba_config, mamba_table>,
     mamba_to_gguf<falcon_mamba_config>, mamba_from_gguf<true>},
    {"mamba2", "Mamba2ForCausalLM", "mamba2", make<mamba2_config, mamba2_table>, mamba2_to_gguf,
     mamba2_from_gguf},
};

}  // namespace

std::span<const Architecture> mamba_architectures() {
  return kRows;
}

}  // namespace qkv
