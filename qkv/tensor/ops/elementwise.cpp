// Elementwise ops.
#include <cmath>

#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {
namespace {

// Runs body(kernels, begin, end) over all elements, with the kernels of the tensor's storage type.
template <typename Body>
void over_elements(const Tensor& like, const char* op, Body&& body) {
  with_float_type(like.dtype(), op, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    parallel_for(like.elements(), detail::kElementGrain,
                 [&](int64_t begin, int64_t end) { body(type, kernels().typed<T>(), begin, end - begin); });
  });
}

template <typename T>
const T* at(const Tensor& t, T*, int64_t offset) {
  return t.data<T>() + offset;
}
template <typename T>
T* at(Tensor& t, T*, int64_t offset) {
  return t.data<T>() + offset;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  detail::require_same(a, b, "add");
  Tensor y = Tensor::empty(a.shape(), a.dtype());
  over_elements(y, "add", [&](auto* t, const auto& k, int64_t i, int64_t n) { k.add(at(a, t, i), at(b, t, i), at(y, t, i), n); });
  record("add", {a, b}, {&y}, [] {
    return [](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, grads[0]);
      sink.add(1, grads[0]);
    };
  });
  return y;
}

Tensor multiply(const Tensor& a, const Tensor& b) {
  detail::require_same(a, b, "multiply");
  const auto product = [](const Tensor& left, const Tensor& right) {
    Tensor y = Tensor::empty(left.shape(), left.dtype());
    over_elements(y, "multiply",
                  [&](auto* t, const auto& k, int64_t i, int64_t n) { k.multiply(at(left, t, i), at(right, t, i), at(y, t, i), n); });
    return y;
  };
  Tensor y = product(a, b);
  record("multiply", {a, b}, {&y}, [&] {
    const Saved saved_a(a), saved_b(b);
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor left = saved_a.take(), right = saved_b.take();
      if (sink.needs(0)) sink.add(0, product(grads[0], right));
      if (sink.needs(1)) sink.add(1, product(grads[0], left));
    };
  });
  return y;
}

Tensor scale(const Tensor& x, float factor) {
  const auto scaled = [factor](const Tensor& in) {
    Tensor y = Tensor::empty(in.shape(), in.dtype());
    over_elements(y, "scale", [&](auto* t, const auto& k, int64_t i, int64_t n) { k.scale(at(in, t, i), factor, at(y, t, i), n); });
    return y;
  };
  Tensor y = scaled(x);
  record("scale", {x}, {&y}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) { sink.add(0, scaled(grads[0])); };
  });
  return y;
}

Tensor activation(const Tensor& x, Activation kind) {
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  over_elements(y, "activation",
                [&](auto* t, const auto& k, int64_t i, int64_t n) { k.activation(kind, at(x, t, i), at(y, t, i), n); });
  record("activation", {x}, {&y}, [&] {
    const Saved saved(x);
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor in = saved.take();
      Tensor dx = Tensor::empty(in.shape(), in.dtype());
      over_elements(dx, "activation", [&](auto* t, const auto& k, int64_t i, int64_t n) {
        k.activation_backward(kind, at(in, t, i), at(grads[0], t, i), at(dx, t, i), n);
      });
      sink.add(0, dx);
    };
  });
  return y;
}

Tensor gated(const Tensor& gate, const Tensor& up, Activation kind) {
  detail::require_same(gate, up, "gated");
  const auto forward = [kind](const Tensor& g, const Tensor& u) {
    Tensor y = Tensor::empty(g.shape(), g.dtype());
    over_elements(y, "gated",
                  [&](auto* t, const auto& k, int64_t i, int64_t n) { k.gated(kind, at(g, t, i), at(u, t, i), at(y, t, i), n); });
    return y;
  };
  Tensor y = forward(gate, up);
  record("gated", {gate, up}, {&y}, [&] {
    const Tensor kept_gate = gate.detach(), kept_up = up.detach();
    set_recompute(y, [=] { return forward(kept_gate, kept_up); });
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dgate = Tensor::empty(kept_gate.shape(), kept_gate.dtype());
      Tensor dup = Tensor::empty(kept_gate.shape(), kept_gate.dtype());
      over_elements(dgate, "gated", [&](auto* t, const auto& k, int64_t i, int64_t n) {
        k.gated_backward(kind, at(kept_gate, t, i), at(kept_up, t, i), at(grads[0], t, i), at(dgate, t, i), at(dup, t, i), n);
      });
      sink.add(0, dgate);
      sink.add(1, dup);
    };
  });
  return y;
}

Tensor ggml_gelu(const Tensor& x) {
  require(!recording({x}), "ggml_gelu: has no gradient");
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  over_elements(y, "ggml_gelu", [&](auto* t, const auto&, int64_t i, int64_t n) {
    using T = std::remove_pointer_t<decltype(t)>;
    for (int64_t j = 0; j < n; ++j) {
      const float v = to_float(from_float<f16>(to_float(at(x, t, i)[j])));
      const float gelu = 0.5f * v * (1 + std::tanh(0.79788456080286535588f * v * (1 + 0.044715f * v * v)));
      at(y, t, i)[j] = from_float<T>(to_float(from_float<f16>(gelu)));
    }
  });
  return y;
}

Tensor dropout(const Tensor& x, float p, uint64_t seed, uint64_t stream) {
  require(p >= 0 && p < 1, "dropout: expected a probability in [0, 1), found {}", p);
  if (p == 0) return x;
  const auto masked = [=](const Tensor& in) {
    Tensor y = Tensor::empty(in.shape(), in.dtype());
    with_float_type(y.dtype(), "dropout", [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      // The grain is a multiple of 4: a counter makes four numbers.
      parallel_for(y.elements(), detail::kElementGrain, [&](int64_t begin, int64_t end) {
        kernels().typed<T>().dropout(in.data<T>() + begin, y.data<T>() + begin, end - begin, p, seed, stream,
                                     static_cast<uint64_t>(begin));
      });
    });
    return y;
  };
  Tensor y = masked(x);
  record("dropout", {x}, {&y}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) { sink.add(0, masked(grads[0])); };
  });
  return y;
}

Tensor clamp(const Tensor& x, float limit) {
  require(limit > 0, "clamp: expected a limit above 0, found {}", limit);
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  over_elements(y, "clamp", [&](auto* t, const auto&, int64_t i, int64_t n) {
    using T = std::remove_pointer_t<decltype(t)>;
    const T* in = at(x, t, i);
    T* out = at(y, t, i);
    for (int64_t j = 0; j < n; ++j) out[j] = from_float<T>(std::clamp(to_float(in[j]), -limit, limit));
  });
  record("clamp", {x}, {&y}, [&] {
    const Saved saved(x);
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor kept = saved.take();
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      over_elements(dx, "clamp", [&](auto* t, const auto&, int64_t i, int64_t n) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* in = at(kept, t, i);
        const T* dy = at(grads[0], t, i);
        T* out = at(dx, t, i);
        for (int64_t j = 0; j < n; ++j) out[j] = std::abs(to_float(in[j])) <= limit ? dy[j] : from_float<T>(0);
      });
      sink.add(0, dx);
    };
  });
  return y;
}

Tensor softcap(const Tensor& x, float cap) {
  require(cap > 0, "softcap: expected a cap above 0, found {}", cap);
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  over_elements(y, "softcap", [&](auto* t, const auto&, int64_t i, int64_t n) {
    using T = std::remove_pointer_t<decltype(t)>;
    const T* in = at(x, t, i);
    T* out = at(y, t, i);
    for (int64_t j = 0; j < n; ++j) out[j] = from_float<T>(cap * std::tanh(to_float(in[j]) / cap));
  });
  record("softcap", {x}, {&y}, [&] {
    return [kept = y.detach(), cap](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      over_elements(dx, "softcap", [&](auto* t, const auto&, int64_t i, int64_t n) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* out = at(kept, t, i);
        const T* dy = at(grads[0], t, i);
        T* in = at(dx, t, i);
        for (int64_t j = 0; j < n; ++j) {
          const float u = to_float(out[j]) / cap;
          in[j] = from_float<T>(to_float(dy[j]) * (1 - u * u));
        }
      });
      sink.add(0, dx);
    };
  });
  return y;
}

Tensor cast(const Tensor& x, DType type) {
  if (x.dtype() == type) return x;
  Tensor y = x.detach().to(type);
  record("cast", {x}, {&y}, [&] {
    return [from = x.dtype()](const std::vector<Tensor>& grads, GradientSink& sink) { sink.add(0, grads[0].to(from)); };
  });
  return y;
}

}  // namespace qkv::ops
