// What Llama and its relatives share: how their config.json is read and how their tensors are called.
#pragma once

#include "qkv/models/decoder_rows.h"

namespace qkv {

// Sizes, RMSNorm before attention and network, SwiGLU, rotary positions, head tied or not.
DecoderConfig llama_line_config(const JsonView& config, const char* model_type, const char* hf_class,
                                const SizeKeys& keys = {});
// "sliding_window" (0 for null); `absent` where the key is missing altogether: the default of the model's
// class.
int64_t sliding_window(const JsonView& config, int64_t absent);
// Qwen's last layers slide, if "use_sliding_window" says so.
void set_qwen_windows(const JsonView& config, DecoderConfig& result);

// model.layers.{}.self_attn.q_proj and so on, dense or with experts as Qwen names them. `turned`: GGUF stores
// queries and keys for rotary positions that turn neighbours.
std::vector<WeightRow> llama_line_table(const DecoderConfig& config, bool turned);
std::vector<WeightRow> llama_table(const DecoderConfig& config);  // turned
std::vector<WeightRow> qwen_table(const DecoderConfig& config);   // as it is

// The router and experts renamed to how Mixtral calls them: block_sparse_moe.gate, .experts.{}.w1, .w2, .w3.
std::vector<WeightRow> with_mixtral_names(std::vector<WeightRow> rows);

// The common keys of a GGUF file of this line.
Json llama_line_from_gguf(const GgufKeys& keys, const char* model_type, const char* hf_class);

}  // namespace qkv
