#include "qkv/quant/trained_rounding.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/quant/four_bit.h"
#include "qkv/quant/quantize.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

// "int4" or "int4-g32".
std::optional<UniformScheme> uniform_from_name(const std::string& name) {
  if (!name.starts_with("int") || name.size() < 4 || name[3] < '2' || name[3] > '8') return std::nullopt;
  UniformScheme scheme;
  scheme.bits = name[3] - '0';
  scheme.group = scheme.bits < 8 ? 128 : 0;
  if (name.size() == 4) return scheme;
  if (!name.substr(4).starts_with("-g")) return std::nullopt;
  char* end = nullptr;
  scheme.group = std::strtoll(name.c_str() + 6, &end, 10);
  if (*end != '\0' || scheme.group <= 0) return std::nullopt;
  return scheme;
}

}  // namespace

RoundTrip::RoundTrip(const std::string& name) : name_(name) {
  if (name == "nf4") map_ = nf4_values();
  if (name == "fp4") map_ = fp4_values();
  uniform_ = uniform_from_name(name);
  if (!map_.empty() || uniform_) return;
  const std::optional<DType> type = dtype_from_name(name);
  require(type && block_type(*type),
          "qat: expected a GGUF block type (q4_0, q4_k, ...), nf4, fp4, int8 or such as int4-g32, found '{}'",
          name);
  require(!needs_importance(*block_type(*type)),
          "qat: type '{}' is of no use without importances, which change as weights do", name);
  block_ = type;
}

bool RoundTrip::fits(int64_t columns) const {
  return !block_ || columns % traits(*block_).block_length == 0;
}

Tensor RoundTrip::operator()(const Tensor& matrix) const {
  const NoGrad off;
  const Tensor w = matrix.detach();
  if (uniform_) return round_to_nearest(w, *uniform_).dequantize();
  if (block_) {
    Tensor stored = Tensor::empty(w.shape(), *block_);
    const int64_t columns = w.cols(), row_bytes = static_cast<int64_t>(stored.bytes()) / w.rows();
    parallel_for(w.rows(), std::max<int64_t>(1, 4096 / columns), [&](int64_t begin, int64_t end) {
      quantize_rows(*block_type(*block_), w.data<float>() + begin * columns, end - begin, columns, nullptr,
                    stored.raw() + begin * row_bytes);
    });
    return stored.to(DType::f32);
  }
  const BlockCodes codes = quantize_blockwise(w.span<float>(), kFourBitBlock, map_);
  Tensor values = Tensor::empty(w.shape());
  for (int64_t i = 0; i < values.elements(); ++i) {
    const auto at = static_cast<size_t>(i);
    values.data<float>()[i] = map_[codes.codes[at]] * codes.scales[at / static_cast<size_t>(kFourBitBlock)];
  }
  return values;
}

RoundedWeight::RoundedWeight(std::unique_ptr<DenseWeight> master, std::shared_ptr<const RoundTrip> rounding)
    : master_(std::move(master)), rounding_(std::move(rounding)) {}

Tensor RoundedWeight::rounded() const {
  Tensor values = (*rounding_)(master_->matrix());
  record("straight_through", {master_->matrix()}, {&values}, [] {
    return [](const std::vector<Tensor>& gradients, GradientSink& sink) { sink.add(0, gradients[0]); };
  });
  return values;
}

Tensor RoundedWeight::apply(const Tensor& x, const Tensor& bias) const {
  return ops::linear(x, rounded(), bias);
}

Tensor RoundedWeight::apply_backward_input(const Tensor& dy) const {
  return ops::linear_backward_input(dy, dequantize());
}

Tensor RoundedWeight::dequantize() const {
  return (*rounding_)(master_->matrix());
}

RoundedLayers round_in_forward(Module& model, const std::string& type) {
  const auto rounding = std::make_shared<const RoundTrip>(type);
  RoundedLayers counts;
  model.visit_linears("", [&](const std::string& name, Linear& linear) {
    const auto* dense = dynamic_cast<const DenseWeight*>(&linear.weight());
    require(dense != nullptr && dense->matrix().dtype() == DType::f32,
            "qat: layer '{}': expected a dense f32 weight to train", name);
    if (!rounding->fits(dense->shape()[1])) {
      ++counts.left;
      return;
    }
    auto master = std::make_unique<DenseWeight>(dense->matrix());
    linear.set_weight(std::make_unique<RoundedWeight>(std::move(master), rounding));
    ++counts.rounded;
  });
  require(counts.rounded > 0, "qat: no linear layer has rows of whole blocks of {}", type);
  return counts;
}

}  // namespace qkv
