#include "qkv/models/model.h"

#include "qkv/tensor/ops.h"

namespace qkv {

Tensor Model::logits(const Tensor& hidden, Activations activations) const {
  const Tensor input = head_input(hidden), bias = head_bias();
  const ops::Projection vocabulary = {&head(), &bias};
  Tensor y = ops::cast(gradient_mode() ? ops::linear(input, head(), bias) : ops::project(input, {&vocabulary, 1}, activations).front(),
                       DType::f32);
  const ops::CrossEntropyOptions options = logit_options();
  if (options.logit_scale != 1) y = ops::scale(y, options.logit_scale);
  return options.softcap > 0 ? ops::softcap(y, options.softcap) : y;
}

Tensor Model::cross_entropy(const Tensor& hidden, const std::vector<int32_t>& targets, ops::CrossEntropyOptions options,
                            const std::vector<float>& weights) const {
  const ops::CrossEntropyOptions own = logit_options();
  options.logit_scale = own.logit_scale;
  options.softcap = own.softcap;
  return ops::linear_cross_entropy(head_input(hidden), head(), targets, options, weights, head_bias());
}

int64_t Model::parameter_count() {
  int64_t count = 0;
  visit("", [&](const std::string&, Tensor& parameter) { count += parameter.elements(); });
  return count;
}

int64_t Model::matrix_parameter_count() {
  const int64_t embedding = info().vocabulary * info().channels;
  return parameter_count() - (info().tied_embeddings ? 0 : embedding);
}

double Model::training_flops_per_token(double context) {
  const ModelInfo& m = info();
  return 6.0 * static_cast<double>(matrix_parameter_count()) +
         6.0 * static_cast<double>(m.layers * m.heads * m.head_dim) * context;
}

void Model::set_trainable(bool trainable) {
  visit("", [&](const std::string&, Tensor& parameter) { parameter.set_requires_grad(trainable); });
}

std::string numbered(const std::string& pattern, int64_t layer) {
  const size_t at = pattern.find("{}");
  return at == std::string::npos ? pattern : pattern.substr(0, at) + std::to_string(layer) + pattern.substr(at + 2);
}

}  // namespace qkv
