// Vector primitives on Highway's static target: load and store any storage type as float lanes, tails included.

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using DU16 = hn::Rebind<uint16_t, DF>;

constexpr DF df;
constexpr DU du;

// Lanes of one float vector; a compile-time constant on every static target we build.
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(DF()));

HWY_INLINE VF widen_bf16(hn::Vec<DU16> bits) {
  return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

// Round to nearest even; NaN stays NaN.
HWY_INLINE hn::Vec<DU16> narrow_bf16(VF x) {
  const auto u = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(u, hn::Add(odd, hn::Set(du, 0x7FFFu))));
  const auto nan = hn::Or(hn::ShiftRight<16>(u), hn::Set(du, 0x40u));
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(x));
  // Values are below 2^16, so the saturating demotion is exact.
  const auto word = hn::IfThenElse(is_nan, nan, rounded);
  return hn::DemoteTo(DU16(), hn::BitCast(DI(), word));
}

// kLanes elements from p as floats.
HWY_INLINE VF load(const float* p) { return hn::LoadU(df, p); }
HWY_INLINE VF load(const bf16* p) { return widen_bf16(hn::LoadU(DU16(), reinterpret_cast<const uint16_t*>(p))); }
#if HWY_TARGET == HWY_SCALAR
// Highway's one-lane set truncates instead of rounding and knows no NaN.
HWY_INLINE VF load(const f16* p) { return hn::Set(df, to_float(*p)); }
#else
HWY_INLINE VF load(const f16* p) {
  return hn::PromoteTo(df, hn::LoadU(hn::Rebind<hwy::float16_t, DF>(), reinterpret_cast<const hwy::float16_t*>(p)));
}
#endif

HWY_INLINE void store(VF v, float* p) { hn::StoreU(v, df, p); }
HWY_INLINE void store(VF v, bf16* p) { hn::StoreU(narrow_bf16(v), DU16(), reinterpret_cast<uint16_t*>(p)); }
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void store(VF v, f16* p) { *p = to_f16(hn::GetLane(v)); }
#else
HWY_INLINE void store(VF v, f16* p) {
  const hn::Rebind<hwy::float16_t, DF> dh;
  hn::StoreU(hn::DemoteTo(dh, v), dh, reinterpret_cast<hwy::float16_t*>(p));
}
#endif

// The first n < kLanes elements; the other lanes are zero.
template <typename T>
HWY_INLINE VF load_n(const T* p, int64_t n) {
  HWY_ALIGN T lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
template <typename T>
HWY_INLINE void store_n(VF v, T* p, int64_t n) {
  HWY_ALIGN T lanes[kLanes];
  store(v, lanes);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
HWY_INLINE VF load_n(const float* p, int64_t n) { return hn::MaskedLoad(hn::FirstN(df, static_cast<size_t>(n)), df, p); }
HWY_INLINE void store_n(VF v, float* p, int64_t n) {
  hn::BlendedStore(v, hn::FirstN(df, static_cast<size_t>(n)), df, p);
}

// kLanes elements, or the first n where fewer are left.
template <typename T>
HWY_INLINE VF load_some(const T* p, int64_t n) {
  return n >= kLanes ? load(p) : load_n(p, n);
}
template <typename T>
HWY_INLINE void store_some(VF v, T* p, int64_t n) {
  if (n >= kLanes) {
    store(v, p);
  } else {
    store_n(v, p, n);
  }
}

// y[i] = f(x...[i]) for n elements: the loop of every elementwise kernel.
template <typename T, typename F, typename... In>
HWY_INLINE void map(T* y, int64_t n, F f, const In*... in) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(f(load(in + i)...), y + i);
  if (i < n) store_n(f(load_n(in + i, n - i)...), y + i, n - i);
}

// sum over i of f(x...[i]), with four accumulators; f must map zero lanes to zero.
template <typename F, typename... In>
HWY_INLINE float reduce(int64_t n, F f, const In*... in) {
  VF a = hn::Zero(df), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    a = hn::Add(a, f(load(in + i)...));
    b = hn::Add(b, f(load(in + i + kLanes)...));
    c = hn::Add(c, f(load(in + i + 2 * kLanes)...));
    d = hn::Add(d, f(load(in + i + 3 * kLanes)...));
  }
  for (; i + kLanes <= n; i += kLanes) a = hn::Add(a, f(load(in + i)...));
  if (i < n) b = hn::Add(b, f(load_n(in + i, n - i)...));
  return hn::GetLane(hn::SumOfLanes(df, hn::Add(hn::Add(a, b), hn::Add(c, d))));
}

// max over i of x[i], NaN if any is NaN (vector maxima alone lose it); n >= 1.
template <typename T>
HWY_INLINE float reduce_max(const T* x, int64_t n) {
  int64_t i = 0;
  VF best = hn::Set(df, to_float(x[0]));
  auto nan = hn::IsNaN(best);
  for (; i + kLanes <= n; i += kLanes) {
    const VF v = load(x + i);
    best = hn::Max(best, v);
    nan = hn::Or(nan, hn::IsNaN(v));
  }
  if (!hn::AllFalse(df, nan)) return __builtin_nanf("");
  float result = hn::GetLane(hn::MaxOfLanes(df, best));
  for (; i < n; ++i) {
    const float value = to_float(x[i]);
    if (value != value) return value;
    result = value > result ? value : result;
  }
  return result;
}

// e^x, 1 ULP; -inf and anything below -104 give 0.
HWY_INLINE VF exp_vector(VF x) { return hn::Exp(df, hn::Max(x, hn::Set(df, -110.0f))); }

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.69314718055994531f;

// 2^x for x < 128 to 1.6e-7 relative; exactly 0 from -127 down (-inf included), NaN for NaN. 2^n 2^f with f in
// [-1/2, 1/2]: a minimax polynomial with p(0) = 1, to whose exponent n is added.
HWY_INLINE VF exp2_vector(VF x) {
  const VF shifter = hn::Set(df, 12582912.0f);  // 1.5 * 2^23: n ends up in the low bits of the sum
  const VF least = hn::Set(df, -127.0f);
  if constexpr (kLanes == 1) {
    x = hn::IfThenElse(hn::Lt(x, least), least, x);
  } else {
    x = hn::Max(least, x);  // x if x is NaN, which the scalar Max would drop
  }
  const VF shifted = hn::Add(x, shifter);
  const VF f = hn::Sub(x, hn::Sub(shifted, shifter));
  VF p = hn::Set(df, 1.3264727e-03f);
  p = hn::MulAdd(p, f, hn::Set(df, 9.671513e-03f));
  p = hn::MulAdd(p, f, hn::Set(df, 5.5507336e-02f));
  p = hn::MulAdd(p, f, hn::Set(df, 2.4022242e-01f));
  p = hn::MulAdd(p, f, hn::Set(df, 6.93147e-01f));
  p = hn::MulAdd(p, f, hn::Set(df, 1.0f));
  return hn::BitCast(df, hn::Add(hn::BitCast(du, p), hn::ShiftLeft<23>(hn::BitCast(du, shifted))));
}

// 1 / (1 + e^-x). The exponential is good up to 104; e^100 is infinite, which gives the 0 that multiplies a very negative x.
HWY_INLINE VF sigmoid_vector(VF x) {
  const VF one = hn::Set(df, 1.0f);
  return hn::Div(one, hn::Add(one, exp_vector(hn::Min(hn::Neg(x), hn::Set(df, 100.0f)))));
}

// tanh by (1 - e^-2|x|) / (1 + e^-2|x|); near zero by its odd series, where the difference would cancel.
HWY_INLINE VF tanh_vector(VF x) {
  const VF one = hn::Set(df, 1.0f);
  const VF magnitude = hn::Abs(x);
  const VF e = exp_vector(hn::Mul(magnitude, hn::Set(df, -2.0f)));
  const VF large = hn::Div(hn::Sub(one, e), hn::Add(one, e));
  const VF square = hn::Mul(x, x);
  VF series = hn::Set(df, 62.0f / 2835.0f);
  series = hn::MulAdd(series, square, hn::Set(df, -17.0f / 315.0f));
  series = hn::MulAdd(series, square, hn::Set(df, 2.0f / 15.0f));
  series = hn::MulAdd(series, square, hn::Set(df, -1.0f / 3.0f));
  series = hn::MulAdd(hn::Mul(series, square), magnitude, magnitude);
  return hn::CopySign(hn::IfThenElse(hn::Lt(magnitude, hn::Set(df, 0.25f)), series, large), x);
}

// erf by the odd rational approximation used by Eigen and XLA: absolute error below 2e-7.
HWY_INLINE VF erf_vector(VF x) {
  const VF limit = hn::Set(df, 4.0f);
  x = hn::Max(hn::Min(x, limit), hn::Neg(limit));
  const VF s = hn::Mul(x, x);
  VF p = hn::Set(df, -2.72614225801306e-10f);
  p = hn::MulAdd(p, s, hn::Set(df, 2.77068142495902e-08f));
  p = hn::MulAdd(p, s, hn::Set(df, -2.10102402082508e-06f));
  p = hn::MulAdd(p, s, hn::Set(df, -5.69250639462346e-05f));
  p = hn::MulAdd(p, s, hn::Set(df, -7.34990630326855e-04f));
  p = hn::MulAdd(p, s, hn::Set(df, -2.95459980854025e-03f));
  p = hn::MulAdd(p, s, hn::Set(df, -1.60960333262415e-02f));
  VF q = hn::Set(df, -1.45660718464996e-05f);
  q = hn::MulAdd(q, s, hn::Set(df, -2.13374055278905e-04f));
  q = hn::MulAdd(q, s, hn::Set(df, -1.68282697438203e-03f));
  q = hn::MulAdd(q, s, hn::Set(df, -7.37332916720468e-03f));
  q = hn::MulAdd(q, s, hn::Set(df, -1.42647390514189e-02f));
  return hn::Div(hn::Mul(p, x), q);
}
