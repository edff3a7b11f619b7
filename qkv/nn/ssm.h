// State-space mixers: Mamba (Gu & Dao, arXiv 2312.00752) with FalconMamba's normalized parameters (arXiv
// 2410.05355), and Mamba-2 (Dao & Gu, arXiv 2405.21060). What a sequence remembers has a fixed size, however
// long it grows.
#pragma once

#include <memory>
#include <optional>

#include "qkv/core/rng.h"
#include "qkv/nn/layers.h"
#include "qkv/nn/mixer.h"
#include "qkv/nn/norm.h"

namespace qkv {

// The last inputs of a convolution (taps - 1, channels) and the state behind it, both f32. Bytes: 4 x
// (elements of both).
class RecurrentState : public LayerState {
 public:
  RecurrentState(Shape convolution, Shape state);
  const Tensor& convolution() const { return convolution_; }
  const Tensor& state() const { return state_; }
  void advance(int64_t tokens) { length_ += tokens; }
  uint64_t bytes() const override { return convolution_.bytes() + state_.bytes(); }
  // To the current length or to the very beginning; Error otherwise, since tokens are not kept one by one.
  void truncate(int64_t length) override;
  bool can_truncate() const override { return false; }
  // A copy: every token writes all of it.
  std::unique_ptr<LayerState> fork(int64_t length) const override;
  void write(ByteSink sink) const override;
  void read(ByteSource source, int64_t most_tokens) override;
  static uint64_t bytes_of(const Shape& convolution, const Shape& state) {
    return sizeof(float) * static_cast<uint64_t>(convolution.elements() + state.elements());
  }

 private:
  Tensor convolution_, state_;
  int64_t length_ = 0;  // tokens seen
};

struct MambaConfig {
  int64_t channels = 0, inner = 0, states = 16, taps = 4, dt_rank = 0;
  bool bias = false, conv_bias = true;  // bias: of the projections in and out
  // The input-dependent step, b and c are divided by their root mean square (FalconMamba).
  bool normalized = false;
  float normalized_eps = 1e-6f;
  Shape convolution_shape() const { return {taps - 1, inner}; }
  Shape state_shape() const { return {states, inner}; }
};

class Mamba : public Mixer {
 public:
  explicit Mamba(const MambaConfig& config);
  Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const override;
  std::unique_ptr<LayerState> make_state(const CacheOptions& options) const override;
  uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;

 private:
  MambaConfig config_;
  Linear in_, gate_;    // C -> D
  Tensor conv_weight_;  // (D, taps)
  Tensor conv_bias_;    // (D) or undefined
  Linear parameters_;   // D -> dt_rank + 2 N
  Linear dt_;           // dt_rank -> D
  Tensor dt_bias_;      // (D)
  Tensor a_log_;        // (D, N)
  Tensor skip_;         // (D)
  Linear out_;          // D -> C
};

struct Mamba2Config {
  int64_t channels = 0, heads = 0, head_dim = 64, states = 128, groups = 1, taps = 4;
  bool bias = false, conv_bias = true;  // bias: of the projections in and out
  bool norm = true;                     // of the gated output, each group by itself
  float norm_eps = 1e-5f;
  float least_step = 0, most_step = std::numeric_limits<float>::infinity();
  int64_t inner() const { return heads * head_dim; }
  int64_t convolved() const { return inner() + 2 * groups * states; }
  Shape convolution_shape() const { return {taps - 1, convolved()}; }
  Shape state_shape() const { return {heads, states, head_dim}; }
};

class Mamba2 : public Mixer {
 public:
  explicit Mamba2(const Mamba2Config& config);
  Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope, size_t layer) const override;
  std::unique_ptr<LayerState> make_state(const CacheOptions& options) const override;
  uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  void visit_linears(const std::string& prefix, const LinearVisitor& visitor) override;

 private:
  Tensor gated_norm(const Tensor& y, const Tensor& z) const;

  Mamba2Config config_;
  Linear gate_;         // C -> D
  Linear in_;           // C -> D + 2 groups N: x, b and c
  Linear dt_;           // C -> heads
  Tensor conv_weight_;  // (D + 2 groups N, taps)
  Tensor conv_bias_;    // as many, or undefined
  Tensor dt_bias_;      // (heads)
  Tensor a_log_;        // (heads)
  Tensor skip_;         // (heads)
  Tensor norm_;         // (D) or undefined
  Linear out_;          // D -> C
};

// Fills a parameter of these mixers whose beginning is part of the method (sections 3.6 of Mamba, S4D-real
// rates, steps spread between 0.001 and 0.1, and convolution and step projection as PyTorch begins them).
// False: it is none of those.
bool initialize_ssm_parameter(const std::string& name, Tensor& parameter, Rng rng);

}  // namespace qkv
