// Activation functions and their gated forms. Each is a value and a derivative; the loops are shared.

struct ValueSlope {
  VF value, slope;
};

struct Silu {  // x * sigmoid(x)
  static HWY_INLINE ValueSlope at(VF x) {
    const VF one = hn::Set(df, 1.0f);
    const VF s = sigmoid_vector(x);
    return {hn::Mul(x, s), hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one))};
  }
};

struct GeluErf {  // x * Phi(x) (Hendrycks & Gimpel, arXiv 1606.08415)
  static HWY_INLINE ValueSlope at(VF x) {
    const VF half = hn::Set(df, 0.5f);
    const VF phi = hn::MulAdd(half, erf_vector(hn::Mul(x, hn::Set(df, 0.70710678118654752f))), half);
    const VF density = hn::Mul(exp_vector(hn::Mul(hn::Mul(x, x), hn::Set(df, -0.5f))), hn::Set(df, 0.39894228040143268f));
    return {hn::Mul(x, phi), hn::MulAdd(x, density, phi)};
  }
};

struct GeluTanh {
  static HWY_INLINE ValueSlope at(VF x) {
    const VF half = hn::Set(df, 0.5f), one = hn::Set(df, 1.0f);
    const VF a = hn::Set(df, 0.79788456080286536f), b = hn::Set(df, 0.044715f);
    const VF square = hn::Mul(x, x);
    const VF inner = hn::Mul(hn::Mul(a, x), hn::MulAdd(b, square, one));
    const VF t = tanh_vector(inner);
    const VF cdf = hn::MulAdd(half, t, half);
    const VF inner_slope = hn::Mul(a, hn::MulAdd(hn::Mul(b, hn::Set(df, 3.0f)), square, one));
    const VF slope = hn::MulAdd(hn::Mul(hn::Mul(half, x), hn::NegMulAdd(t, t, one)), inner_slope, cdf);
    return {hn::Mul(x, cdf), slope};
  }
};

struct QuickGelu {  // x * sigmoid(1.702 x)
  static HWY_INLINE ValueSlope at(VF x) {
    const VF one = hn::Set(df, 1.0f), k = hn::Set(df, 1.702f);
    const VF s = sigmoid_vector(hn::Mul(k, x));
    return {hn::Mul(x, s), hn::Mul(s, hn::MulAdd(hn::Mul(k, x), hn::Sub(one, s), one))};
  }
};

struct Relu {  // a comparison, not Max: NaN must come through
  static HWY_INLINE ValueSlope at(VF x) {
    const VF zero = hn::Zero(df);
    return {hn::IfThenElse(hn::Lt(x, zero), zero, x), hn::IfThenElseZero(hn::Gt(x, zero), hn::Set(df, 1.0f))};
  }
};

struct Relu2 {  // max(x, 0)^2 (So et al., arXiv 2109.08668)
  static HWY_INLINE ValueSlope at(VF x) {
    const VF positive = Relu::at(x).value;
    return {hn::Mul(positive, positive), hn::Add(positive, positive)};
  }
};

struct Sigmoid {
  static HWY_INLINE ValueSlope at(VF x) {
    const VF s = hn::IfThenElse(hn::Eq(x, x), sigmoid_vector(x), x);  // NaN must come through
    return {s, hn::Mul(s, hn::Sub(hn::Set(df, 1.0f), s))};
  }
};

template <typename Body>
HWY_INLINE void with_activation(Activation kind, Body body) {
  switch (kind) {
    case Activation::silu: return body(Silu());
    case Activation::gelu_erf: return body(GeluErf());
    case Activation::gelu_tanh: return body(GeluTanh());
    case Activation::quick_gelu: return body(QuickGelu());
    case Activation::relu: return body(Relu());
    case Activation::relu2: return body(Relu2());
    case Activation::sigmoid: return body(Sigmoid());
  }
}

template <typename T>
void activation(Activation kind, const T* x, T* y, int64_t n) {
  with_activation(kind, [&](auto f) { map(y, n, [](VF v) { return decltype(f)::at(v).value; }, x); });
}

template <typename T>
void activation_backward(Activation kind, const T* x, const T* dy, T* dx, int64_t n) {
  with_activation(kind, [&](auto f) {
    map(dx, n, [](VF v, VF d) { return hn::Mul(decltype(f)::at(v).slope, d); }, x, dy);
  });
}

template <typename T>
void gated(Activation kind, const T* gate, const T* up, T* y, int64_t n) {
  with_activation(kind, [&](auto f) {
    map(y, n, [](VF g, VF u) { return hn::Mul(decltype(f)::at(g).value, u); }, gate, up);
  });
}

template <typename T>
void gated_backward(Activation kind, const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t n) {
  with_activation(kind, [&](auto f) {
    const auto both = [](VF g, VF u, VF d, VF& dg, VF& du_) {
      const ValueSlope at = decltype(f)::at(g);
      dg = hn::Mul(hn::Mul(at.slope, u), d);
      du_ = hn::Mul(at.value, d);
    };
    VF dg, du_;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      both(load(gate + i), load(up + i), load(dy + i), dg, du_);
      store(dg, dgate + i);
      store(du_, dup + i);
    }
    if (i < n) {
      both(load_n(gate + i, n - i), load_n(up + i, n - i), load_n(dy + i, n - i), dg, du_);
      store_n(dg, dgate + i, n - i);
      store_n(du_, dup + i, n - i);
    }
  });
}
