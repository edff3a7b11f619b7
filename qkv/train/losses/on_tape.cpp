#include "qkv/train/losses/on_tape.h"

#include "qkv/core/error.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/autograd.h"
#include "qkv/train/losses/policy.h"

namespace qkv::losses {

Tensor segment_sums(const Tensor& values, const std::vector<int64_t>& offsets,
                    const std::vector<float>& divisors) {
  require_offsets(offsets, static_cast<size_t>(values.elements()), "segment sums");
  const size_t n = offsets.size() - 1;
  require(divisors.empty() || divisors.size() == n, "segment sums: expected {} divisors or none, found {}", n,
          divisors.size());
  const auto factor = [divisors](size_t s) {
    return divisors.empty() ? 1.0 : 1.0 / static_cast<double>(divisors[s]);
  };
  Tensor out = Tensor::empty({static_cast<int64_t>(n)});
  const float* x = values.data<float>();
  for (size_t s = 0; s < n; ++s) {
    double sum = 0;
    for (int64_t i = offsets[s]; i < offsets[s + 1]; ++i) sum += static_cast<double>(x[i]);
    out.data<float>()[s] = static_cast<float>(sum * factor(s));
  }
  record("segment_sums", {values}, {&out}, [&] {
    return [offsets, factor, shape = values.shape()](const std::vector<Tensor>& gradients,
                                                     GradientSink& sink) {
      Tensor dx = Tensor::empty(shape);
      for (size_t s = 0; s + 1 < offsets.size(); ++s) {
        const float g = static_cast<float>(static_cast<double>(gradients[0].data<float>()[s]) * factor(s));
        for (int64_t i = offsets[s]; i < offsets[s + 1]; ++i) dx.data<float>()[i] = g;
      }
      sink.add(0, dx);
    };
  });
  return out;
}

Tensor with_gradients(double value, const std::vector<Tensor>& inputs, std::vector<Tensor> gradients) {
  require(inputs.size() == gradients.size(), "loss: expected {} gradients, found {}", inputs.size(),
          gradients.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    require(inputs[i].shape() == gradients[i].shape() && gradients[i].dtype() == DType::f32,
            "loss: expected a gradient like {}, found {}", describe(inputs[i]), describe(gradients[i]));
  }
  Tensor out = Tensor::full({1}, static_cast<float>(value));
  record("loss", inputs, {&out}, [&] {
    return [gradients = std::move(gradients)](const std::vector<Tensor>& upstream, GradientSink& sink) {
      for (size_t i = 0; i < gradients.size(); ++i) {
        if (!sink.needs(i)) continue;
        Tensor sum = sink.zeroed(i);
        kernels().axpy(upstream[0].item(), gradients[i].data<float>(), sum.data<float>(),
                       gradients[i].elements());
      }
    };
  });
  return out;
}

}  // namespace qkv::losses
