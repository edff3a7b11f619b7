// DeepSeek V2 (arXiv 2405.04434) and V3 (arXiv 2412.19437): latent attention, and after the first layers many
// small experts beside a shared one. V2 routes by softmax, V3 by sigmoids with a bias that only steers the
// choice.
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/families.h"
#include "qkv/models/llama_line.h"

namespace qkv {
namespace {

// Of files whose latent products lie apart: says so in the configuration made from GGUF, and is not kept.
constexpr const char* kSplit = "gguf_split_latents";

DecoderConfig base(const JsonView& config, const char* model_type, const char* hf_class) {
  DecoderConfig result = llama_line_config(config, model_type, hf_class, {.head_dim = ""});
  MlaConfig& mla = result.block.latent_attention.emplace();
  mla.channels = result.info.channels;
  mla.n_heads = static_cast<int>(result.info.heads);
  mla.q_rank = config.json().contains("q_lora_rank") && !config.has("q_lora_rank")
                   ? 0
                   : positive_or(config, "q_lora_rank", 1536);
  mla.kv_rank = positive_or(config, "kv_lora_rank", 512);
  mla.nope_dim = positive_or(config, "qk_nope_head_dim", 128, 65536);
  mla.rope_dim = positive_or(config, "qk_rope_head_dim", 64, 65536);
  mla.v_dim = positive_or(config, "v_head_dim", 128, 65536);
  mla.bias = config.boolean_or("attention_bias", false);
  mla.split_in_gguf = config.boolean_or(kSplit, false);
  result.block.mlp.bias = config.boolean_or("mlp_bias", false);

  RopeConfig rope;
  rope.theta = config.number_or("rope_theta", 10000);
  rope.head_dim = rope.rotary_dim = mla.rope_dim;
  rope.interleaved = config.boolean_or("rope_interleave", true);
  rope.max_positions = result.info.max_positions;
  read_rope_scaling(config, rope);
  result.ropes = {rope};
  const double size = static_cast<double>(mla.nope_dim + mla.rope_dim);
  const double temperature = rope.mscale_all_dim != 0 ? yarn_mscale(rope.factor, rope.mscale_all_dim) : 1;
  mla.scale = static_cast<float>(temperature * temperature / std::sqrt(size));
  result.info.head_dim = mla.nope_dim + mla.rope_dim;
  return result;
}

MoeConfig& set_experts(const JsonView& config, DecoderConfig& result, int64_t experts, int64_t top_k,
                       int64_t hidden, int64_t dense_layers) {
  MoeConfig& moe = result.block.experts.emplace();
  moe.router.experts = static_cast<int>(positive_or(config, "n_routed_experts", experts, 1 << 20));
  moe.router.top_k = static_cast<int>(positive_or(config, "num_experts_per_tok", top_k, 1 << 20));
  moe.expert = result.block.mlp;
  moe.expert.hidden = positive_or(config, "moe_intermediate_size", hidden);
  moe.shared_hidden = moe.expert.hidden * config.integer_or("n_shared_experts", 0);
  const int64_t first = config.integer_or("first_k_dense_replace", dense_layers),
                every = positive_or(config, "moe_layer_freq", 1);
  result.layers.resize(static_cast<size_t>(result.info.layers));
  for (int64_t i = 0; i < result.info.layers; ++i)
    result.layers[static_cast<size_t>(i)].dense = i < first || i % every != 0;
  return moe;
}

DecoderConfig v2_config(const JsonView& config) {
  DecoderConfig result = base(config, "deepseek_v2", "DeepseekV2ForCausalLM");
  RouterConfig& router = set_experts(config, result, 64, 2, 1407, 0).router;
  const std::string method = config.string_or("topk_method", "greedy");
  require(method == "greedy" || method == "group_limited_greedy",
          "{}: key 'topk_method': expected greedy or group_limited_greedy, found '{}'", config.where(),
          method);
  if (method == "group_limited_greedy") {
    router.groups = static_cast<int>(positive(config, "n_group", router.experts));
    router.top_groups = static_cast<int>(positive(config, "topk_group", router.groups));
  }
  // Weights that are made to sum to one are not scaled.
  router.normalize = config.boolean_or("norm_topk_prob", false);
  if (!router.normalize) router.scale = static_cast<float>(config.number_or("routed_scaling_factor", 1));
  return result;
}

DecoderConfig v3_config(const JsonView& config) {
  DecoderConfig result = base(config, "deepseek_v3", "DeepseekV3ForCausalLM");
  RouterConfig& router = set_experts(config, result, 256, 8, 2048, 3).router;
  router.score = RouterConfig::Score::sigmoid;
  router.correction = true;
  router.groups = static_cast<int>(positive_or(config, "n_group", 8, router.experts));
  router.top_groups = static_cast<int>(positive_or(config, "topk_group", 4, router.groups));
  router.groups_by_top_two = true;
  router.normalize = config.boolean_or("norm_topk_prob", true);
  router.scale = static_cast<float>(config.number_or("routed_scaling_factor", 2.5));
  return result;
}

std::vector<WeightRow> deepseek_table(const DecoderConfig& config) {
  std::vector<WeightRow> rows = qwen_table(config);
  for (WeightRow& row : rows) {
    for (const char* part : {"gate", "up", "down"}) {
      if (row.name == std::string("blocks.{}.mlp.shared.") + part) {
        row.hf = std::string("model.layers.{}.mlp.shared_experts.") + part + "_proj";
      }
    }
  }
  const MlaConfig& mla = *config.block.latent_attention;
  const int64_t both = mla.nope_dim + mla.v_dim;
  const Placement keys = {.offset = 0, .run = mla.nope_dim, .stride = both};
  const Placement values = {.offset = mla.nope_dim, .run = mla.v_dim, .stride = both};
  const char* q_a = "model.layers.{}.self_attn.q_a_proj";
  rows.push_back({"blocks.{}.attn.q_a", q_a, "blk.{}.attn_q_a"});
  rows.push_back(
      {"blocks.{}.attn.q_a_norm", "model.layers.{}.self_attn.q_a_layernorm", "blk.{}.attn_q_a_norm"});
  rows.push_back({"blocks.{}.attn.q_b", "model.layers.{}.self_attn.q_b_proj", "blk.{}.attn_q_b"});
  rows.push_back(
      {"blocks.{}.attn.kv_a", "model.layers.{}.self_attn.kv_a_proj_with_mqa", "blk.{}.attn_kv_a_mqa"});
  rows.push_back(
      {"blocks.{}.attn.kv_a_norm", "model.layers.{}.self_attn.kv_a_layernorm", "blk.{}.attn_kv_a_norm"});
  const char* kv_b = "model.layers.{}.self_attn.kv_b_proj";
  if (mla.split_in_gguf) {
    rows.push_back({"blocks.{}.attn.k_b",
                    kv_b,
                    "blk.{}.attn_k_b",
                    keys,
                    {.transposed = true, .shape = {mla.n_heads, mla.kv_rank, mla.nope_dim}}});
    rows.push_back({"blocks.{}.attn.v_b",
                    kv_b,
                    "blk.{}.attn_v_b",
                    values,
                    {.shape = {mla.n_heads, mla.v_dim, mla.kv_rank}}});
  } else {
    rows.push_back({"blocks.{}.attn.k_b", kv_b, "blk.{}.attn_kv_b", keys, keys});
    rows.push_back({"blocks.{}.attn.v_b", kv_b, "blk.{}.attn_kv_b", values, values});
  }
  rows.push_back({"blocks.{}.mlp.correction",
                  "model.layers.{}.mlp.gate.e_score_correction_bias!",
                  "blk.{}.exp_probs_b",
                  {.optional = true},
                  {.optional = true}});
  return rows;
}

template <DecoderConfig (*read)(const JsonView&)>
void to_gguf(const JsonView& json, Metadata& metadata) {
  DecoderConfig config = read(json);
  const MlaConfig& mla = *config.block.latent_attention;
  const MoeConfig& moe = *config.block.experts;
  config.info.kv_heads = config.info.heads;
  write_gguf_keys(config, "deepseek2", metadata);
  const auto u32 = [&](const char* key, int64_t value) {
    metadata.set(std::string("deepseek2.") + key, static_cast<uint32_t>(value));
  };
  if (mla.q_rank > 0) u32("attention.q_lora_rank", mla.q_rank);
  u32("attention.kv_lora_rank", mla.kv_rank);
  u32("attention.key_length", mla.nope_dim + mla.rope_dim);
  u32("attention.value_length", mla.v_dim);
  u32("expert_shared_count", moe.shared_hidden / moe.expert.hidden);
  metadata.set("deepseek2.expert_weights_scale", moe.router.scale);
  int64_t dense = 0;
  while (dense < config.info.layers && config.layers[static_cast<size_t>(dense)].dense) ++dense;
  u32("leading_dense_block_count", dense);
}

// V3 is what weighs experts by sigmoids.
Json from_gguf(const Metadata& metadata, const Checkpoint& checkpoint, bool v3) {
  const GgufKeys keys(metadata, checkpoint);
  if ((keys.integer_or("expert_gating_func", 1) == 2) != v3) return nullptr;
  Json config = keys.sizes(v3 ? "deepseek_v3" : "deepseek_v2",
                           v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM", {.head_dim = "head_dim"});
  config.erase("head_dim");
  const bool split = keys.has("attention.key_length_mla");
  const int64_t heads = keys.integer("attention.head_count"), rope = keys.integer("rope.dimension_count");
  config["num_key_value_heads"] = heads;
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  config["hidden_act"] = "silu";
  config["q_lora_rank"] =
      keys.has_tensor("blk.0.attn_q_a.weight") ? Json(keys.integer("attention.q_lora_rank")) : Json(nullptr);
  config["kv_lora_rank"] = keys.integer("attention.kv_lora_rank");
  config["qk_rope_head_dim"] = rope;
  config["qk_nope_head_dim"] =
      keys.integer(split ? "attention.key_length_mla" : "attention.key_length") - rope;
  config["v_head_dim"] = keys.integer(split ? "attention.value_length_mla" : "attention.value_length");
  if (split) config[kSplit] = true;
  config["first_k_dense_replace"] = keys.integer_or("leading_dense_block_count", 0);
  config["n_routed_experts"] = keys.integer("expert_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["n_shared_experts"] = keys.integer_or("expert_shared_count", 0);
  config["moe_intermediate_size"] = keys.integer("expert_feed_forward_length");
  config["norm_topk_prob"] = keys.boolean_or("expert_weights_norm", false);
  config["routed_scaling_factor"] = keys.number_or("expert_weights_scale", 1);
  const int64_t groups =
      keys.integer_or("expert_group_count", v3 && keys.integer("expert_count") == 256 ? 8 : 1);
  config["n_group"] = groups;
  config["topk_group"] = keys.integer_or("expert_group_used_count", groups > 1 ? 4 : 1);
  if (!v3) config["topk_method"] = groups > 1 ? "group_limited_greedy" : "greedy";
  keys.add_rope(config);
  const double log_multiplier = keys.number_or("rope.scaling.yarn_log_multiplier", 0);
  if (config.contains("rope_scaling") && log_multiplier != 0) {
    config["rope_scaling"]["mscale"] = config["rope_scaling"]["mscale_all_dim"] = 10 * log_multiplier;
  }
  return config;
}

Json v2_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  return from_gguf(metadata, checkpoint, false);
}
Json v3_from_gguf(const Metadata& metadata, const Checkpoint& checkpoint) {
  return from_gguf(metadata, checkpoint, true);
}

}  // namespace

std::span<const Architecture> deepseek_architectures() {
  static constexpr Architecture rows[] = {
      {"deepseek_v2", "DeepseekV2ForCausalLM", "deepseek2", make_decoder<v2_config, deepseek_table>,
       to_gguf<v2_config>, v2_from_gguf},
      {"deepseek_v3", "DeepseekV3ForCausalLM", "deepseek2", make_decoder<v3_config, deepseek_table>,
       to_gguf<v3_config>, v3_from_gguf},
  };
  return rows;
}

}  // namespace qkv
