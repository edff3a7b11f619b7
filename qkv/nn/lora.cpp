#include "qkv/nn/lora.h"

#include <cmath>

#include "qkv/core/error.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/ops.h"
#include "qkv/tensor/ops/detail.h"

namespace qkv {
namespace {

void require_shape(const Tensor& tensor, const Shape& shape, const char* what) {
  require(tensor.defined() && tensor.shape() == shape && tensor.dtype() == DType::f32,
          "adapter: {}: expected f32 {}, found {}", what, shape.str(),
          tensor.defined() ? describe(tensor) : "nothing");
}

// value(i) for every i, (n) f32, off the tape.
template <typename Value>
Tensor vector_of(int64_t n, Value&& value) {
  Tensor out = Tensor::empty({n});
  for (int64_t i = 0; i < n; ++i) out.data<float>()[i] = static_cast<float>(value(i));
  return out;
}

// matrix (R, C) f32 with row i multiplied by g(i).
template <typename Factor>
void scale_rows(Tensor& matrix, Factor&& g) {
  const int64_t cols = matrix.cols();
  parallel_for(matrix.rows(), ops::detail::row_grain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = matrix.data<float>() + r * cols;
      const float factor = g(r);
      for (int64_t c = 0; c < cols; ++c) row[c] *= factor;
    }
  });
}

// x (R, C) with column c multiplied by g[c], off the tape.
Tensor columns_scaled(const Tensor& x, const Tensor& g) {
  const NoGrad off;
  return scale_columns(x, g);
}

// y += factor x.
void add_scaled(Tensor& y, const Tensor& x, float factor) {
  parallel_for(y.elements(), ops::detail::kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().axpy(factor, x.data<float>() + begin, y.data<float>() + begin, end - begin);
  });
}

Tensor masked(const Tensor& x, const AdapterControl& control, uint64_t index) {
  if (control.dropout == 0 || !gradient_mode()) return x;
  return ops::dropout(x, control.dropout, control.dropout_seed, control.dropout_stream + index);
}

}  // namespace

Tensor row_squares(const Tensor& matrix) {
  const int64_t cols = matrix.cols();
  Tensor squares = Tensor::empty({matrix.rows()});
  parallel_for(matrix.rows(), ops::detail::row_grain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      squares.data<float>()[r] =
          static_cast<float>(kernels().sum_of_squares(matrix.data<float>() + r * cols, cols));
    }
  });
  return squares;
}

Tensor scale_columns(const Tensor& x, const Tensor& g, const Tensor& shift) {
  const int64_t rows = x.rows(), cols = x.cols();
  require_shape(g, Shape{cols}, "factors of columns");
  ops::detail::require_vector(shift, cols, "scale_columns");
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  with_float_type(x.dtype(), "scale_columns", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const float* factor = g.data<float>();
    const float* add = ops::detail::data_or_null(shift);
    parallel_for(rows, ops::detail::row_grain(cols), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * cols; i < end * cols; i += cols) {
        const T* in = x.data<T>() + i;
        T* out = y.data<T>() + i;
        for (int64_t c = 0; c < cols; ++c)
          out[c] = from_float<T>(to_float(in[c]) * factor[c] + (add != nullptr ? add[c] : 0.0f));
      }
    });
  });
  record("scale_columns", {x, g, shift}, {&y}, [&] {
    const Saved saved = g.tracks_gradient() ? Saved(x) : Saved();
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor dy = grads[0].to(DType::f32);
      if (sink.needs(0)) {
        const Tensor dx = columns_scaled(dy, g.detach());
        sink.add(0, dx.to(grads[0].dtype()));
      }
      if (!sink.needs(1) && !(shift.defined() && sink.needs(2))) return;
      const Tensor values = sink.needs(1) ? saved.take().to(DType::f32) : Tensor();
      ops::detail::RowReduction sums(rows, 2 * cols);
      sums.run([&](int64_t begin, int64_t end, float* partial) {
        for (int64_t i = begin * cols; i < end * cols; i += cols) {
          for (int64_t c = 0; c < cols; ++c) {
            const float d = dy.data<float>()[i + c];
            if (values.defined()) partial[c] += d * values.data<float>()[i + c];
            partial[cols + c] += d;
          }
        }
      });
      if (sink.needs(1)) sums.add_to(sink.zeroed(1).data<float>(), 0, cols);
      if (shift.defined() && sink.needs(2)) sums.add_to(sink.zeroed(2).data<float>(), cols, cols);
    };
  });
  return y;
}

AdaptedWeight::AdaptedWeight(std::unique_ptr<Weight> base, std::shared_ptr<const AdapterControl> control)
    : base_(std::move(base)), control_(std::move(control)) {}

// ---- LoRA, DoRA ----

LoraWeight::LoraWeight(std::unique_ptr<Weight> base, LoraTensors tensors,
                       std::shared_ptr<const AdapterControl> control)
    : AdaptedWeight(std::move(base), std::move(control)), tensors_(std::move(tensors)) {
  const int64_t n = shape()[0], k = shape()[1], r = tensors_.a.rows();
  require_shape(tensors_.a, Shape{r, k}, "lora_A");
  require_shape(tensors_.b, Shape{n, r}, "lora_B");
  if (tensors_.start_a.defined()) {
    require_shape(tensors_.start_a, Shape{r, k}, "the start of lora_A");
    require_shape(tensors_.start_b, Shape{n, r}, "the start of lora_B");
  }
  if (tensors_.gates.defined()) require_shape(tensors_.gates, Shape{r}, "lora_E");
  require(!tensors_.magnitude.defined() || !(tensors_.start_a.defined() || tensors_.gates.defined()),
          "adapter: DoRA goes neither with PiSSA nor with AdaLoRA");
  if (!tensors_.magnitude.defined()) return;
  require_shape(tensors_.magnitude, Shape{n}, "lora_magnitude_vector");
  base_squares_ = row_squares(base_->dequantize());
}

Tensor LoraWeight::delta(const Tensor& x) const {
  const float scaling = tensors_.scaling * control_->scale;
  const Tensor in = masked(x, *control_, tensors_.index);
  Tensor low = ops::linear(in, tensors_.a);  // (T, r)
  if (tensors_.gates.defined()) low = scale_columns(low, tensors_.gates);
  const Tensor added = ops::linear(ops::scale(low, scaling), tensors_.b);
  if (!tensors_.start_a.defined()) return added;
  return ops::add(added,
                  ops::linear(ops::scale(ops::linear(in, tensors_.start_a), -scaling), tensors_.start_b));
}

Tensor LoraWeight::delta_matrix() const {
  Tensor b = tensors_.b.detach();
  if (tensors_.gates.defined()) b = columns_scaled(b, tensors_.gates);
  Tensor delta = ops::matmul(b, tensors_.a.detach());
  if (tensors_.start_a.defined()) add_scaled(delta, ops::matmul(tensors_.start_b, tensors_.start_a), -1);
  return delta;
}

Tensor LoraWeight::apply(const Tensor& x, const Tensor& bias) const {
  if (off()) return base_->apply(x, bias);
  const bool dora = tensors_.magnitude.defined();
  const Tensor added = delta(x);
  const Tensor y = ops::add(base_->apply(x, dora ? Tensor() : bias), added);
  return dora ? scale_columns(y, row_gains(), bias) : y;
}

Tensor LoraWeight::apply_backward_input(const Tensor& dy) const {
  if (off()) return base_->apply_backward_input(dy);
  const NoGrad no_tape;
  const float scaling = tensors_.scaling * control_->scale;
  const Tensor d = tensors_.magnitude.defined() ? columns_scaled(dy, row_gains()) : dy;
  Tensor low = ops::linear_backward_input(d, tensors_.b);  // (T, r)
  if (tensors_.gates.defined()) low = columns_scaled(low, tensors_.gates);
  Tensor dx = ops::add(base_->apply_backward_input(d),
                       ops::linear_backward_input(ops::scale(low, scaling), tensors_.a));
  if (!tensors_.start_a.defined()) return dx;
  const Tensor start = ops::linear_backward_input(d, tensors_.start_b);
  return ops::add(dx, ops::linear_backward_input(ops::scale(start, -scaling), tensors_.start_a));
}

Tensor LoraWeight::dequantize() const {
  if (off()) return base_->dequantize();
  const NoGrad no_tape;
  Tensor w = base_->dequantize().clone();
  add_scaled(w, delta_matrix(), tensors_.scaling * control_->scale);
  if (tensors_.magnitude.defined()) {
    const Tensor g = row_gains();
    scale_rows(w, [&](int64_t row) { return g.data<float>()[row]; });
  }
  return w;
}

// |W + s B A|^2 of row n = |W_n|^2 + 2 s B_n . (A W^T)_n + s^2 B_n (A A^T) B_n^T.
Tensor LoraWeight::row_norms() const {
  const NoGrad no_tape;
  const Tensor a = tensors_.a.detach(), b = tensors_.b.detach();
  const Tensor cross = base_->apply(a, {});            // (r, N)
  const Tensor gram = ops::matmul(a, a, false, true);  // (r, r)
  const int64_t n = b.rows(), r = b.cols();
  const double s = static_cast<double>(tensors_.scaling * control_->scale);
  Tensor norms = Tensor::empty({n});
  parallel_for(n, ops::detail::row_grain(r * r), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* bn = b.data<float>() + row * r;
      double linear = 0, square = 0;
      for (int64_t i = 0; i < r; ++i) {
        linear += static_cast<double>(bn[i]) * static_cast<double>(cross.data<float>()[i * n + row]);
        double inner = 0;
        for (int64_t j = 0; j < r; ++j)
          inner += static_cast<double>(gram.data<float>()[i * r + j]) * static_cast<double>(bn[j]);
        square += static_cast<double>(bn[i]) * inner;
      }
      const double total =
          static_cast<double>(base_squares_.data<float>()[row]) + 2 * s * linear + s * s * square;
      norms.data<float>()[row] = static_cast<float>(std::sqrt(std::max(total, 1e-30)));
    }
  });
  return norms;
}

Tensor LoraWeight::row_gains() const {
  const bool trained =
      tensors_.magnitude.requires_grad() || tensors_.a.requires_grad() || tensors_.b.requires_grad();
  if (!trained && gains_.defined() && gains_scale_ == control_->scale) return gains_;
  const Tensor norms = row_norms();
  const Tensor& m = tensors_.magnitude;
  const float scale = control_->scale;
  const int64_t n = m.elements();
  // With a scale between, the magnitude lies between the base's own and the trained one.
  Tensor g = vector_of(n, [&](int64_t i) {
    const float own = std::sqrt(base_squares_.data<float>()[i]);
    return (own + scale * (m.data<float>()[i] - own)) / norms.data<float>()[i];
  });
  record("dora_gain", {m}, {&g}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, vector_of(n, [&](int64_t i) {
                 return grads[0].data<float>()[i] * scale / norms.data<float>()[i];
               }));
    };
  });
  if (!trained) {
    gains_ = g;
    gains_scale_ = scale;
  }
  return g;
}

// ---- VeRA ----

VeraWeight::VeraWeight(std::unique_ptr<Weight> base, VeraTensors tensors,
                       std::shared_ptr<const AdapterControl> control)
    : AdaptedWeight(std::move(base), std::move(control)), tensors_(std::move(tensors)) {
  const int64_t n = shape()[0], k = shape()[1], r = tensors_.a.rows();
  require_shape(tensors_.a, Shape{r, k}, "vera_A");
  require_shape(tensors_.b, Shape{n, r}, "vera_B");
  require_shape(tensors_.d, Shape{r}, "vera_lambda_d");
  require_shape(tensors_.l, Shape{n}, "vera_lambda_b");
}

Tensor VeraWeight::apply(const Tensor& x, const Tensor& bias) const {
  const Tensor y = base_->apply(x, bias);
  if (off()) return y;
  const Tensor low = scale_columns(ops::linear(masked(x, *control_, tensors_.index), tensors_.a), tensors_.d);
  return ops::add(y, scale_columns(ops::linear(ops::scale(low, control_->scale), tensors_.b), tensors_.l));
}

Tensor VeraWeight::apply_backward_input(const Tensor& dy) const {
  const Tensor dx = base_->apply_backward_input(dy);
  if (off()) return dx;
  const NoGrad no_tape;
  const Tensor low =
      columns_scaled(ops::linear_backward_input(columns_scaled(dy, tensors_.l), tensors_.b), tensors_.d);
  return ops::add(dx, ops::linear_backward_input(ops::scale(low, control_->scale), tensors_.a));
}

Tensor VeraWeight::dequantize() const {
  if (off()) return base_->dequantize();
  const NoGrad no_tape;
  Tensor w = base_->dequantize().clone();
  Tensor b = columns_scaled(tensors_.b.detach(), tensors_.d);
  scale_rows(b, [&](int64_t row) { return tensors_.l.data<float>()[row]; });
  add_scaled(w, ops::matmul(b, tensors_.a.detach()), control_->scale);
  return w;
}

// ---- IA3 ----

Ia3Weight::Ia3Weight(std::unique_ptr<Weight> base, Tensor factors, bool of_inputs,
                     std::shared_ptr<const AdapterControl> control)
    : AdaptedWeight(std::move(base), std::move(control)),
      factors_(std::move(factors)),
      of_inputs_(of_inputs) {
  require_shape(factors_, Shape{shape()[of_inputs ? 1 : 0]}, "ia3_l");
}

Tensor Ia3Weight::effective() const {
  const float scale = control_->scale;
  if (scale == 1) return factors_;
  const int64_t n = factors_.elements();
  Tensor g = vector_of(n, [&](int64_t i) { return 1 + scale * (factors_.data<float>()[i] - 1); });
  record("ia3_factors", {factors_}, {&g}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, vector_of(n, [&](int64_t i) { return grads[0].data<float>()[i] * scale; }));
    };
  });
  return g;
}

Tensor Ia3Weight::apply(const Tensor& x, const Tensor& bias) const {
  if (off()) return base_->apply(x, bias);
  return of_inputs_ ? base_->apply(scale_columns(x, effective()), bias)
                    : scale_columns(base_->apply(x, bias), effective());
}

Tensor Ia3Weight::apply_backward_input(const Tensor& dy) const {
  if (off()) return base_->apply_backward_input(dy);
  const NoGrad no_tape;
  return of_inputs_ ? scale_columns(base_->apply_backward_input(dy), effective())
                    : base_->apply_backward_input(scale_columns(dy, effective()));
}

Tensor Ia3Weight::dequantize() const {
  if (off()) return base_->dequantize();
  const NoGrad no_tape;
  const Tensor g = effective();
  if (of_inputs_) return scale_columns(base_->dequantize(), g);
  Tensor w = base_->dequantize().clone();
  scale_rows(w, [&](int64_t row) { return g.data<float>()[row]; });
  return w;
}

Tensor Ia3Weight::merged_bias(const Tensor& bias) const {
  if (off() || of_inputs_ || !bias.defined()) return bias;
  const NoGrad no_tape;
  return scale_columns(bias.to(DType::f32).view({1, bias.elements()}), effective()).view({bias.elements()});
}

}  // namespace qkv
