#include "qkv/compress/gradient_walk.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/eval/divergence.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

// Logits that exist at a time, of 4 bytes.
constexpr int64_t kLogits = int64_t{1} << 23;

// A weight that hands what it read and the gradient at what it gave to an observer, during backward.
class TracedWeight : public Weight {
 public:
  using Observer = std::function<void(const Tensor& inputs, const Tensor& gradients)>;
  TracedWeight(std::unique_ptr<Weight> base, Observer observer)
      : base_(std::move(base)), observer_(std::move(observer)) {}
  Shape shape() const override { return base_->shape(); }
  Tensor apply(const Tensor& x, const Tensor& bias) const override {
    const Tensor y = base_->apply(x, bias);
    Tensor seen = y.view(y.shape());
    record("traced", {y}, {&seen}, [&] {
      return [this, inputs = x.detach()](const std::vector<Tensor>& grads, GradientSink& sink) {
        observer_(inputs, grads[0]);
        sink.add(0, grads[0]);
      };
    });
    return seen;
  }
  Tensor apply_backward_input(const Tensor& dy) const override { return base_->apply_backward_input(dy); }
  Tensor dequantize() const override { return base_->dequantize(); }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    base_->visit(prefix, visitor);
  }
  std::unique_ptr<Weight> release() { return std::move(base_); }

 private:
  std::unique_ptr<Weight> base_;
  Observer observer_;
};

// Traces a linear layer while alive.
class Tracing {
 public:
  Tracing(Linear& linear, TracedWeight::Observer observer) : linear_(linear) {
    // The layer is never without a weight of its shape.
    auto base = linear.exchange_weight(std::make_unique<DenseWeight>(linear.weight().shape()));
    linear.set_weight(std::make_unique<TracedWeight>(std::move(base), std::move(observer)));
  }
  ~Tracing() {
    auto traced = linear_.exchange_weight(std::make_unique<DenseWeight>(linear_.weight().shape()));
    linear_.set_weight(dynamic_cast<TracedWeight&>(*traced).release());
  }
  Tracing(const Tracing&) = delete;
  Tracing& operator=(const Tracing&) = delete;

 private:
  Linear& linear_;
};

// The index at which the cumulative probabilities pass `uniform`.
int32_t draw(const float* logits, int64_t n, double uniform) {
  const double largest = static_cast<double>(*std::max_element(logits, logits + n));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  double left = uniform * sum;
  for (int64_t i = 0; i < n; ++i) {
    left -= std::exp(static_cast<double>(logits[i]) - largest);
    if (left < 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(std::max_element(logits, logits + n) - logits);
}

}  // namespace

double sum_of_divergences(const Tensor& changed, const Tensor& before) {
  const int64_t rows = changed.rows(), n = changed.cols();
  std::vector<double> divergences(static_cast<size_t>(rows));
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      divergences[static_cast<size_t>(r)] =
          compare_rows(changed.data<float>() + r * n, before.data<float>() + r * n, n, 0).kl;
    }
  });
  return std::accumulate(divergences.begin(), divergences.end(), 0.0);
}

GradientWalk::GradientWalk(Decoder& model, const TokenSequences& sequences, uint64_t seed) : model_(model) {
  require(!sequences.empty(), "calibration: expected at least one sequence, found none");
  for (const auto& sequence : sequences) {
    tokens_.insert(tokens_.end(), sequence.begin(), sequence.end());
    lengths_.push_back(static_cast<int64_t>(sequence.size()));
  }
  pass_ = Pass::whole(lengths_);
  {
    const NoGrad off;
    entering_.push_back(embedded());
    for (size_t layer = 0; layer < static_cast<size_t>(model.info().layers); ++layer) {
      stop_if_interrupted();
      entering_.push_back(model.run_layer(layer, entering_.back(), pass_));
    }
    hidden_ = model.finish(entering_.back(), pass_);
    draw_targets(seed);
  }
  left_ = layers();
  Tensor last = entering_.back().detach();
  last.set_requires_grad(true);
  backward(model.cross_entropy(model.finish(last, pass_), targets_));
  gradients_ = last.grad();
  double sum = 0;
  for (const float g : gradients_.span<float>()) sum += std::abs(static_cast<double>(g));
  require(std::isfinite(sum), "calibration: expected finite gradients, found some that are not");
}

void GradientWalk::draw_targets(uint64_t seed) {
  targets_.resize(tokens_.size());
  Rng rng(seed);
  std::vector<double> uniforms(tokens_.size());
  for (double& uniform : uniforms) uniform = rng.uniform_double();
  const int64_t vocabulary = model_.info().vocabulary, rows = tokens();
  const int64_t chunk = std::max<int64_t>(1, kLogits / vocabulary);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    stop_if_interrupted();
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor logits = model_.logits(hidden_.row_view(begin, end));
    parallel_for(end - begin, 1, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const auto at = static_cast<size_t>(begin + r);
        targets_[at] = draw(logits.data<float>() + r * vocabulary, vocabulary, uniforms[at]);
      }
    });
  }
}

Tensor GradientWalk::embedded() const {
  const NoGrad off;
  return model_.embed(tokens_, pass_);
}

std::vector<LayerTrace> GradientWalk::step() {
  require(left_ > 0, "calibration: expected a layer to go on with, found the beginning of the model");
  stop_if_interrupted();
  const size_t layer = left_ - 1;
  const std::string prefix = fmt::format("blocks.{}.", layer);
  std::vector<LayerTrace> traces;
  Tensor x = entering_[layer].detach();
  x.set_requires_grad(true);
  {
    std::vector<std::unique_ptr<Tracing>> tracings;
    model_.visit_linears("", [&](const std::string& name, Linear& linear) {
      if (!name.starts_with(prefix)) return;
      tracings.push_back(
          std::make_unique<Tracing>(linear, [&traces, name](const Tensor& inputs, const Tensor& gradients) {
            traces.push_back({name, inputs.to(DType::f32), gradients.to(DType::f32)});
          }));
    });
    backward(model_.run_layer(layer, x, pass_), gradients_);
  }
  gradients_ = x.grad();
  left_ = layer;
  return traces;
}

double GradientWalk::divergence(size_t layer, size_t sequences, bool embeds_anew) const {
  const NoGrad off;
  std::vector<int64_t> lengths, chosen;  // of the sequences, and their tokens
  const size_t count = std::min(sequences, lengths_.size());
  size_t next = 0;
  int64_t first = 0;
  for (size_t s = 0; s < lengths_.size(); ++s) {
    if (next < count && s == next * lengths_.size() / count) {
      lengths.push_back(lengths_[s]);
      for (int64_t t = 0; t < lengths_[s]; ++t) chosen.push_back(first + t);
      ++next;
    }
    first += lengths_[s];
  }
  const auto rows = static_cast<int64_t>(chosen.size());
  const Pass pass = Pass::whole(lengths);
  Tensor x = ops::select_rows(embeds_anew ? embedded() : entering_.at(layer), chosen);
  const Tensor before = ops::select_rows(hidden_, chosen);
  for (size_t l = layer; l < layers(); ++l) {
    stop_if_interrupted();
    x = model_.run_layer(l, x, pass);
  }
  const Tensor changed = model_.finish(x, pass);
  const int64_t chunk = std::max<int64_t>(1, kLogits / model_.info().vocabulary);
  double sum = 0;
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    sum += sum_of_divergences(model_.logits(changed.row_view(begin, end)),
                              model_.logits(before.row_view(begin, end)));
  }
  return sum / static_cast<double>(rows);
}

}  // namespace qkv
