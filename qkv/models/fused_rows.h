// Where queries, keys and values lie in fused projections.
#pragma once

#include "qkv/models/decoder.h"

namespace qkv {

struct FusedRows {
  Placement q, k, v;
};

// All queries, then all keys, then all values.
inline FusedRows one_after_the_other(const DecoderConfig& config) {
  const int64_t q = config.info.heads * config.info.head_dim,
                kv = config.info.kv_heads * config.info.head_dim;
  return {{.offset = 0}, {.offset = q}, {.offset = q + kv}};
}

// By key/value head: its queries, its key, its value.
inline FusedRows by_kv_head(const DecoderConfig& config) {
  const int64_t head = config.info.head_dim, group = config.info.heads / config.info.kv_heads,
                stride = (group + 2) * head;
  return {{.offset = 0, .run = group * head, .stride = stride},
          {.offset = group * head, .run = head, .stride = stride},
          {.offset = (group + 1) * head, .run = head, .stride = stride}};
}

// The same rows of a matrix that is stored (inputs, outputs).
inline FusedRows transposed(FusedRows rows) {
  for (Placement* at : {&rows.q, &rows.k, &rows.v}) at->transposed = true;
  return rows;
}

// Appends the rows of the fused projection: `hf` and `gguf` are its names.
inline void add_fused(std::vector<WeightRow>& table, const char* hf, const FusedRows& hf_at, const char* gguf,
                      const FusedRows& gguf_at) {
  table.push_back({"blocks.{}.attn.q", hf, gguf, hf_at.q, gguf_at.q});
  table.push_back({"blocks.{}.attn.k", hf, gguf, hf_at.k, gguf_at.k});
  table.push_back({"blocks.{}.attn.v", hf, gguf, hf_at.v, gguf_at.v});
}

}  // namespace qkv
