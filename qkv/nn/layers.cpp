#include "qkv/nn/layers.h"

#include "qkv/core/error.h"

namespace qkv {

Linear::Linear(int64_t inputs, int64_t outputs, bool bias)
    : weight_(std::make_unique<DenseWeight>(Shape{outputs, inputs})), bias_(bias ? Tensor::zeros({outputs}) : Tensor()) {}

Tensor Linear::forward(const Tensor& x, const Pass& pass) const { return forward_together(x, {this}, pass).front(); }

std::vector<Tensor> forward_together(const Tensor& x, std::initializer_list<const Linear*> layers, const Pass& pass) {
  std::vector<Tensor> y(layers.size());
  std::vector<ops::Projection> projections;  // of the layers whose weights are a matrix and nothing else
  std::vector<size_t> places;
  size_t i = 0;
  for (const Linear* layer : layers) {
    const Tensor* stored = gradient_mode() ? nullptr : layer->weight_->stored();
    if (stored == nullptr) {
      y[i] = layer->forward(x);
    } else {
      projections.push_back({stored, &layer->bias_});
      places.push_back(i);
    }
    ++i;
  }
  if (projections.empty()) return y;
  std::vector<Tensor> products = ops::project(x, projections, pass.activations);
  for (size_t p = 0; p < places.size(); ++p) y[places[p]] = std::move(products[p]);
  return y;
}

void Linear::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  weight_->visit(prefix, visitor);
  if (bias_.defined()) visitor(prefix + "bias", bias_);
}

void Linear::visit_linears(const std::string& prefix, const LinearVisitor& visitor) { visitor(prefix.substr(0, prefix.size() - 1), *this); }

void Linear::set_weight(std::unique_ptr<Weight> weight) { exchange_weight(std::move(weight)); }

std::unique_ptr<Weight> Linear::exchange_weight(std::unique_ptr<Weight> weight) {
  require(weight->shape() == weight_->shape(), "linear: expected a weight of shape {}, found {}", weight_->shape().str(),
          weight->shape().str());
  std::swap(weight_, weight);
  return weight;
}

Activation activation_from_name(const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu_erf;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::gelu_tanh;
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "relu") return Activation::relu;
  if (name == "relu2") return Activation::relu2;
  if (name == "sigmoid") return Activation::sigmoid;
  fail("activation: expected silu, gelu, gelu_new, quick_gelu, relu, relu2 or sigmoid, found '{}'", name);
}

std::string activation_name(Activation activation) {
  switch (activation) {
    case Activation::silu: return "silu";
    case Activation::gelu_erf: return "gelu";
    case Activation::gelu_tanh: return "gelu_pytorch_tanh";
    case Activation::quick_gelu: return "quick_gelu";
    case Activation::relu: return "relu";
    case Activation::relu2: return "relu2";
    case Activation::sigmoid: return "sigmoid";
  }
  return "?";
}

}  // namespace qkv
