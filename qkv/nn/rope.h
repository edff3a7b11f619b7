// Angles of rotary position embedding (Su et al., arXiv 2104.09864), with the context extensions: linear
// interpolation (Chen et al., arXiv 2306.15595), static and dynamic NTK, YaRN (Peng et al., arXiv
// 2309.00071), Llama 3's wavelength-dependent scaling and LongRoPE (Ding et al., arXiv 2402.13753).
// Frequencies follow the Hugging Face definitions, so checkpoints give the same numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/tensor/ops.h"

namespace qkv {

struct RopeConfig {
  enum class Scaling : uint8_t { none, linear, ntk, dynamic, yarn, llama3, longrope };
  double theta = 10000;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;  // how many of head_dim are rotated
  bool interleaved = false;
  int64_t max_positions = 0;  // max_position_embeddings
  Scaling scaling = Scaling::none;
  double factor = 1;
  int64_t original_max_positions = 0;
  double attention_factor = 0;  // multiplies cos and sin; 0: the method's default
  // YaRN
  double beta_fast = 32, beta_slow = 1;
  double mscale = 0, mscale_all_dim = 0;  // DeepSeek's: the default attention factor is their ratio
  bool truncate = true;                   // round the correction range to whole dimensions
  // Llama 3
  double low_freq_factor = 1, high_freq_factor = 4;
  // LongRoPE: what each wavelength is multiplied by (rotary_dim / 2), up to and beyond the original positions
  std::vector<double> short_factors, long_factors;
  double short_mscale = 0, long_mscale = 0;  // attention factors of either, where they differ (Phi-3.5-MoE)
};

// Reads "rope_scaling" (and its older spelling "type") of a Hugging Face config into `rope`, whose theta,
// dimensions and max_positions are set already. Error naming the key if it is of a kind that is not known.
void read_rope_scaling(const JsonView& config, RopeConfig& rope);
// 0.1 mscale ln(factor) + 1: YaRN's correction of attention's temperature.
double yarn_mscale(double factor, double mscale);

class Rope {
 public:
  explicit Rope(const RopeConfig& config);
  // cos and sin for each token's position, f32 (T, rotary_dim / 2). Where frequencies depend on the length
  // (dynamic NTK, LongRoPE), it is each sequence's own largest position + 1 in this call.
  ops::RopeTable table(const std::vector<int32_t>& positions, const ops::PackedSequences& sequences) const;
  const RopeConfig& config() const { return config_; }
  // The frequencies of a sequence of `length` tokens, in radians per position (rotary_dim / 2).
  std::vector<float> frequencies(int64_t length) const;
  // What multiplies cos and sin of a sequence of `length` tokens.
  float magnitude(int64_t length) const;

 private:
  bool depends_on_length() const;
  RopeConfig config_;
  std::vector<float> frequencies_;  // of a short sequence
};

}  // namespace qkv
