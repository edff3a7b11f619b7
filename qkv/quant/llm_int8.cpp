#include "qkv/quant/llm_int8.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

constexpr float kLargestCode = 127;

int32_t dot(const int8_t* a, const int8_t* b, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += int32_t{a[i]} * b[i];
  return sum;
}

}  // namespace

std::vector<int64_t> outlier_columns(const Tensor& x, float threshold) {
  const int64_t columns = x.cols();
  std::vector<uint8_t> has_outlier(static_cast<size_t>(columns));
  const float* values = x.data<float>();
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t c = 0; c < columns; ++c)
      has_outlier[static_cast<size_t>(c)] |= std::abs(values[r * columns + c]) >= threshold ? 1 : 0;
  std::vector<int64_t> found;
  for (int64_t c = 0; c < columns; ++c) {
    if (has_outlier[static_cast<size_t>(c)] != 0) found.push_back(c);
  }
  return found;
}

Int8Matrix quantize_int8_rows(const Tensor& matrix, const std::vector<int64_t>& skipped) {
  const int64_t rows = matrix.rows(), columns = matrix.cols();
  Int8Matrix result{Tensor::empty({rows, columns}, DType::i8), Tensor::empty({rows})};
  const float* values = matrix.data<float>();
  auto* codes = result.codes.data<int8_t>();
  float* scales = result.scales.data<float>();
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = begin; r < end; ++r) {
      std::copy_n(values + r * columns, columns, row.begin());
      for (const int64_t c : skipped) row[static_cast<size_t>(c)] = 0;
      float largest = 0;
      for (const float x : row) largest = std::max(largest, std::abs(x));
      scales[r] = largest;
      const float inverse = largest == 0 ? 0.0f : kLargestCode / largest;
      for (int64_t c = 0; c < columns; ++c) {
        const float code = std::clamp(row[static_cast<size_t>(c)] * inverse, -kLargestCode, kLargestCode);
        codes[r * columns + c] = static_cast<int8_t>(std::nearbyint(code));
      }
    }
  });
  return result;
}

Int8Weight::Int8Weight(Int8Matrix rows, float threshold) : rows_(std::move(rows)), threshold_(threshold) {
  require(rows_.codes.dtype() == DType::i8 && rows_.codes.shape().rank() == 2 &&
              rows_.scales.elements() == rows_.codes.rows(),
          "int8 weight: expected a matrix of codes and a scale per row, found {} and {}",
          describe(rows_.codes), describe(rows_.scales));
}

Tensor Int8Weight::dequantize() const {
  const int64_t columns = rows_.codes.cols();
  Tensor result = Tensor::empty(rows_.codes.shape());
  for (int64_t i = 0; i < result.elements(); ++i)
    result.data<float>()[i] = static_cast<float>(rows_.codes.data<int8_t>()[i]) *
                              rows_.scales.data<float>()[i / columns] * (1 / kLargestCode);
  return result;
}

Tensor Int8Weight::apply(const Tensor& input, const Tensor& bias) const {
  const Tensor x = input.detach().to(DType::f32);
  const int64_t tokens = x.rows(), columns = x.cols(), outputs = rows_.codes.rows();
  require(columns == rows_.codes.cols(), "int8 weight: expected {} inputs, found {}", rows_.codes.cols(),
          columns);
  const std::vector<int64_t> outliers = outlier_columns(x, threshold_);
  const Int8Matrix inputs = quantize_int8_rows(x, outliers);
  Tensor y = Tensor::empty({tokens, outputs});
  const auto *a = inputs.codes.data<int8_t>(), *w = rows_.codes.data<int8_t>();
  const float *row_scale = inputs.scales.data<float>(), *scale = rows_.scales.data<float>(),
              *values = x.data<float>();
  float* out = y.data<float>();
  constexpr float kBoth = 1 / (kLargestCode * kLargestCode);
  parallel_for(outputs, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t o = begin; o < end; ++o) {
        float sum = static_cast<float>(dot(a + t * columns, w + o * columns, columns)) *
                    (row_scale[t] * scale[o] * kBoth);
        for (const int64_t c : outliers)
          sum += values[t * columns + c] *
                 (static_cast<float>(w[o * columns + c]) * scale[o] * (1 / kLargestCode));
        out[t * outputs + o] = bias.defined() ? sum + bias.data<float>()[o] : sum;
      }
    }
  });
  Tensor result = y.to(input.dtype());
  record("int8 linear", {input}, {&result}, [&] {
    return [this, type = input.dtype()](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, apply_backward_input(grads[0]).to(type));
    };
  });
  return result;
}

Tensor Int8Weight::apply_backward_input(const Tensor& dy) const {
  return ops::linear_backward_input(dy, dequantize());
}

void Int8Weight::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  visitor(prefix + "weight", rows_.codes);
  visitor(prefix + "weight_scale", rows_.scales);
}

}  // namespace qkv
