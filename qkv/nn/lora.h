// Adapters: few trained numbers beside a frozen weight, whatever the weight is (dense, block-quantized,
// another adapter): QLoRA (Dettmers et al., arXiv 2305.14314) is LoRA over blocks. Each is a decorator that
// owns its base.
//
//   LoRA    y = x W^T + s (x A^T) B^T, A (r, K), B (N, r), s = alpha / r
//           Hu et al., arXiv 2106.09685
//   rsLoRA  s = alpha / sqrt(r)
//           Kalajdzievski, arXiv 2312.03732
//   DoRA    W' = (m / |W + s B A|) (W + s B A), rows; |.| has no gradient
//           Liu et al., arXiv 2402.09353
//   PiSSA   W' = W + s (B A - B0 A0): A and B begin as W's leading singular vectors, B0 A0, which the paper
//           takes out of W; here W stays whole, whatever it is stored as, and is the reference
//           Meng et al., arXiv 2404.02948
//   AdaLoRA W' = W + s B diag(e) A, with entries of e, and so ranks, taken away where they matter least
//           Zhang et al., arXiv 2303.10512
//   IA3     W' = diag(l) W or W diag(l): outputs (with their bias) or inputs scaled
//           Liu et al., arXiv 2205.05638
//   VeRA    W' = W + diag(b) B diag(d) A, A and B random, frozen, shared
//           Kopiczko et al., arXiv 2310.11454
#pragma once

#include <memory>

#include "qkv/nn/weight.h"

namespace qkv {

// What all weights of one adapter share: changing it changes the model at once.
struct AdapterControl {
  bool enabled = true;  // false: the base as it is (a reference policy without a second model)
  float scale = 1;      // of the adapter's effect: 0 is the base, 1 the adapter as trained
  // Training: of what goes into A. The mask of weight i is the stream `dropout_stream` + i.
  float dropout = 0;
  uint64_t dropout_seed = 0, dropout_stream = 0;
};

class AdaptedWeight : public Weight {
 public:
  AdaptedWeight(std::unique_ptr<Weight> base, std::shared_ptr<const AdapterControl> control);
  Shape shape() const override { return base_->shape(); }
  // The base's parameters only: an adapter's own are its owner's to visit, save and train.
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    base_->visit(prefix, visitor);
  }
  const Weight& base() const { return *base_; }
  std::unique_ptr<Weight> release_base() { return std::move(base_); }
  // What a layer's bias (N) becomes when the adapter is merged into its weight.
  virtual Tensor merged_bias(const Tensor& bias) const { return bias; }

 protected:
  bool off() const { return !control_->enabled || control_->scale == 0; }
  std::unique_ptr<Weight> base_;
  std::shared_ptr<const AdapterControl> control_;
};

struct LoraTensors {
  Tensor a;                 // (r, K); may be shared by weights that read the same input
  Tensor b;                 // (N, r)
  Tensor magnitude;         // (N): DoRA; undefined: LoRA
  Tensor start_a, start_b;  // like a and b: PiSSA's A0 and B0, frozen; or undefined
  Tensor gates;             // (r): AdaLoRA's e; or undefined
  float scaling = 1;
  uint64_t index = 0;  // of the weight among the adapter's: its dropout stream
};

class LoraWeight : public AdaptedWeight {
 public:
  // Error if the shapes do not fit.
  LoraWeight(std::unique_ptr<Weight> base, LoraTensors tensors,
             std::shared_ptr<const AdapterControl> control);
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override;
  Tensor dequantize() const override;

 private:
  // DoRA's factor of every row, (N), on the tape through the magnitude. Norms cost r rows of products with
  // the base.
  Tensor row_gains() const;
  // Of W + s B A, (N), off the tape.
  Tensor row_norms() const;
  // What is added to x W^T, (T, N), by the adapter.
  Tensor delta(const Tensor& x) const;
  // What is added to W, (N, K), off the tape.
  Tensor delta_matrix() const;

  LoraTensors tensors_;
  Tensor base_squares_;             // DoRA: (N) squared norms of the base's rows
  mutable Tensor gains_;            // DoRA: row_gains() of tensors that are not trained
  mutable float gains_scale_ = -1;  // the control's scale they are for
};

struct VeraTensors {
  Tensor a, b;  // (r, K), (N, r): frozen
  Tensor d, l;  // (r), (N): lambda_d, lambda_b
  uint64_t index = 0;
};

class VeraWeight : public AdaptedWeight {
 public:
  VeraWeight(std::unique_ptr<Weight> base, VeraTensors tensors,
             std::shared_ptr<const AdapterControl> control);
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override;
  Tensor dequantize() const override;

 private:
  VeraTensors tensors_;
};

class Ia3Weight : public AdaptedWeight {
 public:
  // `factors`: (N), or with `of_inputs` (K).
  Ia3Weight(std::unique_ptr<Weight> base, Tensor factors, bool of_inputs,
            std::shared_ptr<const AdapterControl> control);
  Tensor apply(const Tensor& x, const Tensor& bias) const override;
  Tensor apply_backward_input(const Tensor& dy) const override;
  Tensor dequantize() const override;
  Tensor merged_bias(const Tensor& bias) const override;

 private:
  // 1 + scale (l - 1), on the tape.
  Tensor effective() const;

  Tensor factors_;
  bool of_inputs_;
};

// The squared norm of every row of a matrix (N, K) f32, (N).
Tensor row_squares(const Tensor& matrix);

// y (T, N) = x g + shift, column by column; g f32 (N), shift f32 (N) or undefined. Differentiable in all
// three.
Tensor scale_columns(const Tensor& x, const Tensor& g, const Tensor& shift = {});

}  // namespace qkv
