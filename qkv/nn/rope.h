// Angles of rotary position embedding, with the context extensions: linear interpolation (Chen et al., arXiv 2306.15595),
// dynamic NTK, YaRN (Peng et al., arXiv 2309.00071) and Llama 3's wavelength-dependent scaling. Frequencies follow the
// Hugging Face definitions, so checkpoints give the same numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/tensor/ops.h"

namespace qkv {

struct RopeConfig {
  enum class Scaling { none, linear, dynamic, yarn, llama3 };
  double theta = 10000;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;  // how many of head_dim are rotated
  bool interleaved = false;
  int64_t max_positions = 0;  // max_position_embeddings
  Scaling scaling = Scaling::none;
  double factor = 1;
  int64_t original_max_positions = 0;
  double attention_factor = 0;  // 0: the method's default
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;  // YaRN: round the correction range to whole dimensions
  double low_freq_factor = 1, high_freq_factor = 4;
};

// Reads "rope_scaling" (and its older spelling "type") of a Hugging Face config into `rope`; Error naming the key if it is
// of a kind that is not known.
void read_rope_scaling(const JsonView& config, RopeConfig& rope);
// The "rope_scaling" value that read_rope_scaling reads back; null without scaling.
Json rope_scaling_json(const RopeConfig& rope);

class Rope {
 public:
  explicit Rope(const RopeConfig& config);
  // cos and sin for each token's position, f32 (T, rotary_dim / 2).
  ops::RopeTable table(const std::vector<int32_t>& positions) const;
  const RopeConfig& config() const { return config_; }

 private:
  std::vector<float> frequencies(double theta) const;  // (rotary_dim / 2)
  RopeConfig config_;
  std::vector<float> inverse_frequencies_;
  float magnitude_ = 1;  // multiplies cos and sin
};

}  // namespace qkv
