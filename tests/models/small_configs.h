// A small configuration of every attention architecture, with what its family varies switched on.
#pragma once

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "qkv/core/json.h"

namespace qkv::test {

struct SmallConfig {
  std::string name;
  Json config;
  bool in_gguf = true;  // GGUF has a place for this variant
};

inline void PrintTo(const SmallConfig& config, std::ostream* out) {
  *out << config.name;
}

// Keys of `changes` over those of `base`.
inline Json with(Json base, const Json& changes) {
  for (const auto& [key, value] : changes.items()) base[key] = value;
  return base;
}

inline std::vector<SmallConfig> small_configs() {
  const Json usual = {{"vocab_size", 50},
                      {"hidden_size", 32},
                      {"intermediate_size", 40},
                      {"num_hidden_layers", 2},
                      {"num_attention_heads", 4},
                      {"num_key_value_heads", 2},
                      {"max_position_embeddings", 64}};
  const Json gpt2 = {{"vocab_size", 50}, {"n_embd", 32}, {"n_layer", 2}, {"n_head", 4}, {"n_positions", 64}};
  const Json bert = {{"vocab_size", 50},       {"hidden_size", 32},        {"intermediate_size", 40},
                     {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"max_position_embeddings", 64},
                     {"hidden_act", "gelu"}};
  const Json falcon = {
      {"vocab_size", 50}, {"hidden_size", 32}, {"num_hidden_layers", 2}, {"num_attention_heads", 4}};
  const Json deepseek = {
      {"q_lora_rank", 12},          {"kv_lora_rank", 10},      {"qk_nope_head_dim", 6},
      {"qk_rope_head_dim", 4},      {"v_head_dim", 7},         {"moe_intermediate_size", 12},
      {"n_routed_experts", 8},      {"n_shared_experts", 2},   {"num_experts_per_tok", 2},
      {"first_k_dense_replace", 1}, {"num_key_value_heads", 4}};
  const auto model = [](const char* type, const char* hf_class, const Json& base,
                        const Json& changes = Json::object()) {
    return with(with({{"model_type", type}, {"architectures", {hf_class}}}, base), changes);
  };
  return {
      {"llama", model("llama", "LlamaForCausalLM", usual, {{"attention_bias", true}, {"mlp_bias", true}})},
      {"llama_scaled", model("llama", "LlamaForCausalLM", usual,
                             {{"head_dim", 12},
                              {"tie_word_embeddings", true},
                              {"rope_scaling",
                               {{"rope_type", "llama3"},
                                {"factor", 8.0},
                                {"low_freq_factor", 1.0},
                                {"high_freq_factor", 4.0},
                                {"original_max_position_embeddings", 32}}}})},
      {"llama_yarn",
       model("llama", "LlamaForCausalLM", usual,
             {{"rope_scaling",
               {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 16}}}})},
      {"llama_linear",
       model("llama", "LlamaForCausalLM", usual, {{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}})},
      {"mistral", model("mistral", "MistralForCausalLM", usual, {{"sliding_window", 5}})},
      {"qwen2", model("qwen2", "Qwen2ForCausalLM", usual)},
      {"qwen2_window",
       model("qwen2", "Qwen2ForCausalLM", usual,
             {{"use_sliding_window", true}, {"sliding_window", 4}, {"max_window_layers", 1}}),
       false},
      {"qwen3", model("qwen3", "Qwen3ForCausalLM", usual, {{"head_dim", 12}})},
      {"stablelm", model("stablelm", "StableLmForCausalLM", usual,
                         {{"use_qkv_bias", true}, {"partial_rotary_factor", 0.5}})},
      {"stablelm_parallel",
       model("stablelm", "StableLmForCausalLM", usual,
             {{"use_parallel_residual", true}, {"qk_layernorm", true}, {"partial_rotary_factor", 0.5}})},
      {"olmo", model("olmo", "OlmoForCausalLM", usual, {{"clip_qkv", 0.5}})},
      {"olmo2", model("olmo2", "Olmo2ForCausalLM", usual)},
      {"mixtral", model("mixtral", "MixtralForCausalLM", usual, {{"num_local_experts", 4}})},
      {"qwen2_moe",
       model("qwen2_moe", "Qwen2MoeForCausalLM", usual,
             {{"num_experts", 6}, {"moe_intermediate_size", 12}, {"shared_expert_intermediate_size", 20}})},
      {"qwen3_moe", model("qwen3_moe", "Qwen3MoeForCausalLM", usual,
                          {{"num_experts", 6},
                           {"num_experts_per_tok", 3},
                           {"moe_intermediate_size", 12},
                           {"norm_topk_prob", true}})},
      {"qwen3_moe_mixed",
       model("qwen3_moe", "Qwen3MoeForCausalLM", usual,
             {{"num_experts", 6},
              {"num_experts_per_tok", 3},
              {"moe_intermediate_size", 12},
              {"mlp_only_layers", {0}}}),
       false},
      {"olmoe", model("olmoe", "OlmoeForCausalLM", usual, {{"num_experts", 6}, {"num_experts_per_tok", 3}})},
      {"gemma", model("gemma", "GemmaForCausalLM", usual, {{"head_dim", 12}})},
      {"gemma2", model("gemma2", "Gemma2ForCausalLM", usual,
                       {{"head_dim", 12},
                        {"sliding_window", 5},
                        {"query_pre_attn_scalar", 16},
                        {"attn_logit_softcapping", 3.0},
                        {"final_logit_softcapping", 4.0}})},
      {"gemma3", model("gemma3_text", "Gemma3ForCausalLM", usual,
                       {{"num_hidden_layers", 7},
                        {"head_dim", 12},
                        {"sliding_window", 5},
                        {"query_pre_attn_scalar", 16}})},
      {"phi", model("phi", "PhiForCausalLM", usual, {{"qk_layernorm", true}})},
      {"phi3", model("phi3", "Phi3ForCausalLM", usual,
                     {{"partial_rotary_factor", 0.5},
                      {"original_max_position_embeddings", 16},
                      {"rope_scaling",
                       {{"type", "longrope"}, {"short_factor", {1.0, 1.5}}, {"long_factor", {2.0, 4.0}}}}})},
      {"phimoe", model("phimoe", "PhimoeForCausalLM", usual,
                       {{"num_local_experts", 4}, {"attention_bias", true}, {"lm_head_bias", true}})},
      {"gpt2", model("gpt2", "GPT2LMHeadModel", gpt2)},
      {"gpt_bigcode", model("gpt_bigcode", "GPTBigCodeForCausalLM", gpt2)},
      {"gpt_bigcode_heads", model("gpt_bigcode", "GPTBigCodeForCausalLM", gpt2, {{"multi_query", false}})},
      {"gpt_neox", model("gpt_neox", "GPTNeoXForCausalLM", bert, {{"rotary_pct", 0.5}})},
      {"gpt_neox_sequential",
       model("gpt_neox", "GPTNeoXForCausalLM", bert, {{"use_parallel_residual", false}})},
      {"gptj", model("gptj", "GPTJForCausalLM", gpt2, {{"rotary_dim", 4}})},
      {"falcon_7b", model("falcon", "FalconForCausalLM", falcon)},
      {"falcon_40b", model("falcon", "FalconForCausalLM", falcon,
                           {{"new_decoder_architecture", true}, {"num_kv_heads", 2}})},
      {"falcon_11b",
       model("falcon", "FalconForCausalLM", falcon,
             {{"new_decoder_architecture", true}, {"num_kv_heads", 2}, {"num_ln_in_parallel_attn", 1}})},
      {"falcon_rw",
       model("falcon", "FalconForCausalLM", falcon,
             {{"alibi", true}, {"bias", true}, {"parallel_attn", false}, {"multi_query", false}}),
       false},
      {"bloom", model("bloom", "BloomForCausalLM",
                      {{"vocab_size", 50}, {"hidden_size", 32}, {"n_layer", 2}, {"n_head", 4}})},
      {"mpt",
       model("mpt", "MptForCausalLM", {{"vocab_size", 50}, {"d_model", 36}, {"n_layers", 2}, {"n_heads", 6}},
             {{"attn_config", {{"clip_qkv", 0.5}, {"alibi_bias_max", 4}}}})},
      {"opt", model("opt", "OPTForCausalLM", usual, {{"ffn_dim", 40}}), false},
      {"opt_350m",
       model("opt", "OPTForCausalLM", usual,
             {{"ffn_dim", 40}, {"do_layer_norm_before", false}, {"word_embed_proj_dim", 20}}),
       false},
      {"deepseek_v2", model("deepseek_v2", "DeepseekV2ForCausalLM", with(usual, deepseek),
                            {{"topk_method", "group_limited_greedy"},
                             {"n_group", 4},
                             {"topk_group", 2},
                             {"routed_scaling_factor", 1.5}})},
      {"deepseek_v2_lite",
       model("deepseek_v2", "DeepseekV2ForCausalLM", with(usual, deepseek), {{"q_lora_rank", nullptr}})},
      {"deepseek_v3", model("deepseek_v3", "DeepseekV3ForCausalLM", with(usual, deepseek),
                            {{"n_group", 4},
                             {"topk_group", 2},
                             {"rope_scaling",
                              {{"type", "yarn"},
                               {"factor", 4.0},
                               {"original_max_position_embeddings", 16},
                               {"mscale", 1.0},
                               {"mscale_all_dim", 1.0}}}})},
      {"bert", model("bert", "BertModel", bert)},
      {"bert_mlm", model("bert", "BertForMaskedLM", bert), false},
      {"roberta_mlm", model("roberta", "RobertaForMaskedLM", bert, {{"type_vocab_size", 1}}), false},
      {"xlm_roberta", model("xlm-roberta", "XLMRobertaModel", bert, {{"type_vocab_size", 1}}), false},
      {"distilbert", model("distilbert", "DistilBertModel",
                           {{"vocab_size", 50},
                            {"dim", 32},
                            {"hidden_dim", 40},
                            {"n_layers", 2},
                            {"n_heads", 4},
                            {"max_position_embeddings", 64}})},
      {"distilbert_mlm",
       model("distilbert", "DistilBertForMaskedLM",
             {{"vocab_size", 50},
              {"dim", 32},
              {"hidden_dim", 40},
              {"n_layers", 2},
              {"n_heads", 4},
              {"max_position_embeddings", 64}}),
       false},
  };
}

}  // namespace qkv::test
