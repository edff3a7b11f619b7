// Causal depthwise convolution over packed sequences.
#include <cstring>

#include "qkv/tensor/ops/state_space.h"

namespace qkv::ops {
namespace {

// Runs body(sequence, begin, end) for the pieces that rows [first, last) of all sequences cut out of each:
// `begin` and `end` count from the sequence's first token.
template <typename Body>
void over_pieces(const std::vector<int64_t>& offsets, int64_t first, int64_t last, Body&& body) {
  auto next = std::upper_bound(offsets.begin(), offsets.end(), first);
  for (size_t s = static_cast<size_t>(next - offsets.begin()) - 1;
       s + 1 < offsets.size() && offsets[s] < last; ++s) {
    const int64_t begin = std::max(first, offsets[s]), end = std::min(last, offsets[s + 1]);
    if (begin < end) body(s, begin - offsets[s], end - offsets[s]);
  }
}

struct Weights {
  Tensor taps;  // (K, C) f32
  Tensor bias;  // (C) f32 or undefined
};

// The kernel's view of sequence s.
template <typename T>
CausalConvSequence<T> view(const Tensor& x, const Weights& weights, const std::vector<int64_t>& offsets,
                           size_t s, bool silu) {
  CausalConvSequence<T> sequence;
  sequence.x = x.data<T>() + offsets[s] * x.cols();
  sequence.w = weights.taps.data<float>();
  sequence.bias = detail::data_or_null(weights.bias);
  sequence.tokens = offsets[s + 1] - offsets[s];
  sequence.channels = x.cols();
  sequence.taps = weights.taps.dim(0);
  sequence.silu = silu;
  return sequence;
}

Tensor forward(const Tensor& x, const Weights& weights, const std::vector<int64_t>& offsets, bool silu,
               const std::vector<Tensor>& states) {
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  with_float_type(x.dtype(), "causal_conv1d", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* out = y.data<T>();
    parallel_for(x.rows(), detail::row_grain(x.cols()), [&](int64_t first, int64_t last) {
      over_pieces(offsets, first, last, [&](size_t s, int64_t begin, int64_t end) {
        CausalConvSequence<T> sequence = view<T>(x, weights, offsets, s, silu);
        if (!states.empty()) sequence.past = states[s].data<float>();
        kernels().typed<T>().ssm.causal_conv(sequence, out + offsets[s] * x.cols(), begin, end);
      });
    });
  });
  return y;
}

// The last K - 1 inputs of each sequence and what came before it become its state.
void advance(const Tensor& x, const std::vector<int64_t>& offsets, const std::vector<Tensor>& states) {
  for (size_t s = 0; s < states.size(); ++s) {
    Tensor state = states[s];
    const int64_t kept = state.dim(0), n = offsets[s + 1] - offsets[s], fresh = std::min(kept, n);
    float* rows = state.data<float>();
    const auto width = static_cast<size_t>(x.cols()) * sizeof(float);
    std::memmove(rows, rows + fresh * x.cols(), static_cast<size_t>(kept - fresh) * width);
    if (fresh == 0) continue;
    const Tensor last = x.detach().row_view(offsets[s + 1] - fresh, offsets[s + 1]).to(DType::f32);
    std::memcpy(rows + (kept - fresh) * x.cols(), last.data<float>(), static_cast<size_t>(fresh) * width);
  }
}

}  // namespace

Tensor causal_conv1d(const Tensor& x, const Tensor& w, const Tensor& bias, const PackedSequences& sequences,
                     bool silu, const std::vector<Tensor>& states) {
  const int64_t channels = x.cols();
  require(w.shape().rank() == 2 && w.dim(0) == channels && w.dim(1) >= 1,
          "causal_conv1d: expected a weight ({}, K), found {}", channels, describe(w));
  detail::require_vector(bias, channels, "causal_conv1d: bias");
  const int64_t taps = w.dim(1);
  detail::require_sequences(sequences, x.rows(), "causal_conv1d");
  detail::require_states(states, sequences, {taps - 1, channels}, recording({x, w, bias}), "causal_conv1d");
  const Weights weights = {detail::transposed(w.detach().to(DType::f32)),
                           bias.defined() ? bias.detach() : bias};
  Tensor y = forward(x, weights, sequences.offsets, silu, states);
  advance(x, sequences.offsets, states);
  record("causal_conv1d", {x, w, bias}, {&y}, [&] {
    const Tensor kept = x.detach();
    set_recompute(y, [=, offsets = sequences.offsets] { return forward(kept, weights, offsets, silu, {}); });
    return [=, offsets = sequences.offsets](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      detail::RowReduction sums(kept.rows(), (taps + 1) * channels);  // dw (K, C), dbias
      with_float_type(kept.dtype(), "causal_conv1d", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T* dy = grads[0].data<T>();
        T* out = dx.data<T>();
        sums.run([&](int64_t first, int64_t last, float* partial) {
          Tensor ring = Tensor::empty({taps, channels});
          over_pieces(offsets, first, last, [&](size_t s, int64_t begin, int64_t end) {
            const int64_t at = offsets[s] * channels;
            kernels().typed<T>().ssm.causal_conv_backward(view<T>(kept, weights, offsets, s, silu), dy + at,
                                                          out + at, partial, partial + taps * channels, begin,
                                                          end, ring.data<float>());
          });
        });
      });
      sink.add(0, dx);
      if (sink.needs(1)) {
        Tensor dw = Tensor::zeros({taps, channels});
        sums.add_to(dw.data<float>(), 0, taps * channels);
        sink.add(1, detail::transposed(dw));
      }
      if (weights.bias.defined() && sink.needs(2))
        sums.add_to(sink.zeroed(2).data<float>(), taps * channels, channels);
    };
  });
  return y;
}

}  // namespace qkv::ops
