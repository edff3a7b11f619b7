// AdamW whose moments are kept in 8 bits (Dettmers et al., arXiv 2110.02861): blocks of 256 numbers share the
// largest magnitude among them, and a code says which of 256 fractions of it a number is. The fractions are
// dynamic: a run of decades with fewer and fewer digits. 2.03 bytes per parameter instead of 8. Parameters of
// fewer than 4096 numbers keep f32 moments.
#include <algorithm>
#include <array>
#include <cmath>

#include "qkv/kernels/kernels.h"
#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

constexpr int64_t kBlock = 256, kLeast = 4096;

// The middles of evenly cut decades, finer towards 1: 2^i of them (twice as many without a sign) in decade i
// of seven; with negatives if signed, and 0 and 1. Sorted.
std::array<float, 256> dynamic_codes(bool is_signed) {
  std::vector<double> values = {0, 1};
  for (int decade = 0; decade < 7; ++decade) {
    const int count = (is_signed ? 1 : 2) << decade;
    const double top = std::pow(10.0, decade - 6);
    for (int i = 0; i < count; ++i) {
      const double middle = (0.1 + 0.9 * (i + 0.5) / count) * top;
      values.push_back(middle);
      if (is_signed) values.push_back(-middle);
    }
  }
  std::sort(values.begin(), values.end());
  std::array<float, 256> codes{};
  std::copy(values.begin(), values.end(), codes.begin());
  return codes;
}

class Codebook {
 public:
  explicit Codebook(bool is_signed) : codes_(dynamic_codes(is_signed)) {}
  float value(uint8_t code) const { return codes_[code]; }
  // The nearest; of two as near the lower.
  uint8_t nearest(float x) const {
    const auto above = std::lower_bound(codes_.begin(), codes_.end(), x);
    if (above == codes_.begin()) return 0;
    if (above == codes_.end()) return 255;
    const auto i = above - codes_.begin();
    return static_cast<uint8_t>(x - codes_[static_cast<size_t>(i - 1)] <= *above - x ? i - 1 : i);
  }
  void load(const uint8_t* codes, float scale, float* out, int64_t n) const {
    for (int64_t i = 0; i < n; ++i) out[i] = value(codes[i]) * scale;
  }
  float store(const float* in, uint8_t* codes, int64_t n) const {
    float scale = 0;
    for (int64_t i = 0; i < n; ++i) scale = std::max(scale, std::abs(in[i]));
    const float inverse = scale > 0 ? 1 / scale : 0;
    for (int64_t i = 0; i < n; ++i) codes[i] = nearest(in[i] * inverse);
    return scale;
  }

 private:
  std::array<float, 256> codes_;
};

class AdamW8bit : public Optimizer {
 public:
  AdamW8bit(Module& module, const OptimizerConfig& config) : Optimizer(module, config) {}

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    const Shape& shape = slot.parameter.shape();
    if (shape.elements() < kLeast) return {{"m", shape}, {"v", shape}};
    const Shape blocks{(shape.elements() + kBlock - 1) / kBlock};
    return {{"m", shape, DType::u8}, {"m_scale", blocks}, {"v", shape, DType::u8}, {"v_scale", blocks}};
  }

  void update(Slot& slot, const float* g, float lr, float grad_scale) override {
    const AdamWStep step = adamw_step(slot, lr, grad_scale);
    const int64_t n = slot.parameter.elements();
    float* p = slot.parameter.data<float>();
    if (n < kLeast)
      return kernels().adamw(step, p, g, slot.state[0].data<float>(), slot.state[1].data<float>(), n);
    auto *m_codes = slot.state[0].data<uint8_t>(), *v_codes = slot.state[2].data<uint8_t>();
    auto *m_scale = slot.state[1].data<float>(), *v_scale = slot.state[3].data<float>();
    parallel_for((n + kBlock - 1) / kBlock, 64, [&](int64_t begin, int64_t end) {
      std::array<float, kBlock> m, v;
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * kBlock, count = std::min(kBlock, n - first);
        signed_.load(m_codes + first, m_scale[b], m.data(), count);
        unsigned_.load(v_codes + first, v_scale[b], v.data(), count);
        kernels().adamw(step, p + first, g + first, m.data(), v.data(), count);
        m_scale[b] = signed_.store(m.data(), m_codes + first, count);
        v_scale[b] = unsigned_.store(v.data(), v_codes + first, count);
      }
    });
  }

 private:
  Codebook signed_{true}, unsigned_{false};
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw_8bit(Module& module, const OptimizerConfig& config) {
  return std::make_unique<AdamW8bit>(module, config);
}

}  // namespace qkv::optimizers
