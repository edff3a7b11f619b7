// LLM.int8() (Dettmers et al., arXiv 2208.07339): rows of weights and of activations in 8 bits with a scale
// each, multiplied in integers; input columns with an outlier are left out of that and multiplied in floating
// point. As bitsandbytes stores it, outlier columns of the weight are in 8 bits, too.
#pragma once

#include <memory>
#include <vector>

#include "qkv/nn/weight.h"

namespace qkv {

struct Int8Matrix {
  Tensor codes;   // (rows, columns) i8, -127 to 127
  Tensor scales;  // (rows) f32: the largest magnitudes; value = code * scale / 127
};
// matrix (rows, columns) f32. Columns in `skipped` (ascending) get code 0 and do not count for the scales.
Int8Matrix quantize_int8_rows(const Tensor& matrix, const std::vector<int64_t>& skipped = {});

// The columns in which some magnitude is at least the threshold, ascending. x (T, columns) f32.
std::vector<int64_t> outlier_columns(const Tensor& x, float threshold);

// A frozen weight that multiplies that way; the gradient flows to the input through the dequantized matrix.
class Int8Weight : public Weight {
 public:
  static constexpr float kThreshold = 6;  // the paper's

  explicit Int8Weight(Int8Matrix rows, float threshold = kThreshold);
  Shape shape() const override { return rows_.codes.shape(); }
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override;
  Tensor dequantize() const override;
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;

 private:
  Int8Matrix rows_;
  float threshold_;
};

}  // namespace qkv
