// Fitting scales to groups that lie side by side, one per lane. No fused operation, no sum across lanes.

// Groups whose values spread less than this have no scale.
constexpr float kNoSpread = 1e-15f;

// To the nearest integer, ties to even, for |v| < 2^22.
HWY_INLINE VF nearest_integer(VF v) {
  const VF shifter = hn::Set(df, 12582912.0f);  // 1.5 * 2^23
  return hn::Sub(hn::Add(v, shifter), shifter);
}

// 1 / v, and 0 where v is 0 or so small that the inverse is infinite.
HWY_INLINE VF inverse_or_zero(VF v) {
  const VF zero = hn::Zero(df);
  return hn::IfThenElse(hn::Gt(hn::Abs(v), hn::Set(df, 1e-38f)), hn::Div(hn::Set(df, 1.0f), v), zero);
}

// Levels as a function object: the level nearest to v.
struct LinearLevels {
  VF least, most;
  HWY_INLINE VF operator()(VF v) const { return nearest_integer(hn::Min(hn::Max(v, least), most)); }
};

// Levels in ascending order by the midpoints between them; a midpoint belongs to the upper level.
template <size_t count>
struct TableLevels {
  std::array<float, count - 1> midpoints, rises;
  float lowest;
  explicit TableLevels(const std::array<float, count>& levels) : lowest(levels[0]) {
    for (size_t i = 0; i + 1 < count; ++i) {
      midpoints[i] = (levels[i] + levels[i + 1]) / 2;
      rises[i] = levels[i + 1] - levels[i];
    }
  }
  HWY_INLINE VF operator()(VF v) const {
    // Two sums take turns; all of them are small integers, so the order does not matter.
    VF sum = hn::Set(df, lowest), other = hn::Zero(df);
    for (size_t i = 0; i + 1 < count; i += 2) {
      sum = hn::Add(sum, hn::IfThenElseZero(hn::Ge(v, hn::Set(df, midpoints[i])), hn::Set(df, rises[i])));
      if (i + 2 < count) {
        other = hn::Add(other, hn::IfThenElseZero(hn::Ge(v, hn::Set(df, midpoints[i + 1])), hn::Set(df, rises[i + 1])));
      }
    }
    return hn::Add(sum, other);
  }
};

inline TableLevels<16> iq4_levels() {
  std::array<float, 16> levels{};
  for (size_t i = 0; i < 16; ++i) levels[i] = static_cast<float>(kIq4Values[i]);
  return TableLevels<16>(levels);
}
inline TableLevels<15> mxfp4_levels() {  // minus zero is not among them
  std::array<float, 15> levels{};
  for (size_t i = 0; i < 8; ++i) {
    levels[7 + i] = static_cast<float>(kMxfp4Values[i]);
    levels[7 - i] = -static_cast<float>(kMxfp4Values[i]);
  }
  return TableLevels<15>(levels);
}

// body(levels, weighted): with the levels' function object and whether weights are not all 1, as a type.
template <class Body>
HWY_INLINE void with_levels(Levels levels, const float* w, Body&& body) {
  const auto call = [&](const auto& nearest) HWY_ATTR {
    if (w != nullptr) {
      body(nearest, std::true_type());
    } else {
      body(nearest, std::false_type());
    }
  };
  switch (levels.kind) {
    case Levels::Kind::linear:
      return call(LinearLevels{hn::Set(df, static_cast<float>(levels.least)), hn::Set(df, static_cast<float>(levels.most))});
    case Levels::Kind::iq4:
      return call(iq4_levels());
    case Levels::Kind::mxfp4:
      return call(mxfp4_levels());
  }
}

template <bool weighted>
HWY_INLINE VF weigh(VF v, const float* w, int64_t i) {
  if constexpr (weighted) return hn::Mul(load(w + i), v);
  return v;
}

template <bool weighted>
void fit_affine_groups(const float* x, const float* w, int n, int most, bool negative, SearchSteps steps, float* scale,
                       float* offset) {
  const VF zero = hn::Zero(df), levels = hn::Set(df, static_cast<float>(most));
  for (int64_t g = 0; g < kGroupLanes; g += kLanes) {
    VF low = load(x + g), high = low, sum_w = zero, sum_x = zero;
    for (int i = 0; i < n; ++i) {
      const int64_t at = int64_t{i} * kGroupLanes + g;
      const VF v = load(x + at);
      low = hn::Min(low, v);
      high = hn::Max(high, v);
      if constexpr (weighted) sum_w = hn::Add(sum_w, load(w + at));
      sum_x = hn::Add(sum_x, weigh<weighted>(v, w, at));
    }
    if constexpr (!weighted) sum_w = hn::Set(df, static_cast<float>(n));
    if (negative) low = hn::Min(low, zero);
    const VF spread = hn::Sub(high, low);
    const auto flat = hn::Lt(spread, hn::Set(df, kNoSpread));
    const VF inverse_spread = hn::IfThenElse(flat, zero, inverse_or_zero(spread));
    // Without any step: one value for all.
    VF best_scale = zero;
    VF best_offset = hn::Mul(sum_x, inverse_or_zero(sum_w));
    if (negative) best_offset = hn::Min(best_offset, zero);
    // The error is a constant less this; where the offset is bound to 0 as well.
    VF best_gain = hn::Mul(best_offset, sum_x);
    for (int k = 0; k < steps.count; ++k) {
      const VF inverse =
          hn::Mul(hn::Set(df, static_cast<float>(most) + steps.first + static_cast<float>(k) * steps.step), inverse_spread);
      VF sum_l = zero, sum_ll = zero, sum_xl = zero;
      for (int i = 0; i < n; ++i) {
        const int64_t at = int64_t{i} * kGroupLanes + g;
        const VF v = load(x + at);
        const VF l = nearest_integer(hn::Min(hn::Mul(hn::Sub(v, low), inverse), levels));
        const VF wl = weigh<weighted>(l, w, at);
        sum_l = hn::Add(sum_l, wl);
        sum_ll = hn::Add(sum_ll, hn::Mul(wl, l));
        sum_xl = hn::Add(sum_xl, hn::Mul(wl, v));
      }
      const VF determinant = hn::Sub(hn::Mul(sum_w, sum_ll), hn::Mul(sum_l, sum_l));
      const VF inverse_determinant = inverse_or_zero(determinant);
      VF s = hn::Mul(hn::Sub(hn::Mul(sum_w, sum_xl), hn::Mul(sum_x, sum_l)), inverse_determinant);
      VF m = hn::Mul(hn::Sub(hn::Mul(sum_ll, sum_x), hn::Mul(sum_l, sum_xl)), inverse_determinant);
      if (negative) {
        const auto bound = hn::Gt(m, zero);
        s = hn::IfThenElse(bound, hn::Mul(sum_xl, inverse_or_zero(sum_ll)), s);
        m = hn::IfThenElse(bound, zero, m);
      }
      const VF gain = hn::Add(hn::Mul(s, sum_xl), hn::Mul(m, sum_x));
      const auto better = hn::And(hn::And(hn::Gt(gain, best_gain), hn::Gt(determinant, zero)), hn::Gt(s, zero));
      best_gain = hn::IfThenElse(better, gain, best_gain);
      best_scale = hn::IfThenElse(better, s, best_scale);
      best_offset = hn::IfThenElse(better, m, best_offset);
    }
    store(best_scale, scale + g);
    store(best_offset, offset + g);
  }
}

void fit_affine(const float* x, const float* w, int n, int most, bool negative, SearchSteps steps, float* scale,
                float* offset) {
  if (w != nullptr) {
    fit_affine_groups<true>(x, w, n, most, negative, steps, scale, offset);
  } else {
    fit_affine_groups<false>(x, w, n, most, negative, steps, scale, offset);
  }
}

struct Ends {
  float least, most;
};
inline Ends ends_of(Levels levels) {
  switch (levels.kind) {
    case Levels::Kind::linear:
      return {static_cast<float>(levels.least), static_cast<float>(levels.most)};
    case Levels::Kind::iq4:
      return {static_cast<float>(kIq4Values[0]), static_cast<float>(kIq4Values[15])};
    case Levels::Kind::mxfp4:
      break;
  }
  return {-static_cast<float>(kMxfp4Values[7]), static_cast<float>(kMxfp4Values[7])};
}

void fit_scale(const float* x, const float* w, int n, Levels levels, SearchSteps steps, float* scale) {
  with_levels(levels, w, [&](const auto& nearest, auto weighted) HWY_ATTR {
    const VF zero = hn::Zero(df);
    const Ends ends = ends_of(levels);
    const int candidates = steps.both_ends ? 2 * steps.count : steps.count;
    for (int64_t g = 0; g < kGroupLanes; g += kLanes) {
      VF extreme = zero;
      for (int i = 0; i < n; ++i) {
        const VF v = load(x + int64_t{i} * kGroupLanes + g);
        extreme = hn::IfThenElse(hn::Gt(hn::Abs(v), hn::Abs(extreme)), v, extreme);
      }
      const VF inverse_extreme =
          hn::IfThenElse(hn::Lt(hn::Abs(extreme), hn::Set(df, kNoSpread)), zero, inverse_or_zero(extreme));
      VF best_scale = zero, best_gain = zero;
      for (int k = 0; k < candidates; ++k) {
        const float beyond = steps.first + static_cast<float>(k % steps.count) * steps.step;
        const VF inverse =
            hn::Mul(hn::Set(df, k < steps.count ? ends.least - beyond : ends.most + beyond), inverse_extreme);
        VF sum_ll = zero, sum_xl = zero;
        for (int i = 0; i < n; ++i) {
          const int64_t at = int64_t{i} * kGroupLanes + g;
          const VF v = load(x + at);
          const VF l = nearest(hn::Mul(v, inverse));
          const VF wl = weigh<decltype(weighted)::value>(l, w, at);
          sum_ll = hn::Add(sum_ll, hn::Mul(wl, l));
          sum_xl = hn::Add(sum_xl, hn::Mul(wl, v));
        }
        const VF s = hn::Mul(sum_xl, inverse_or_zero(sum_ll));
        const VF gain = hn::Mul(s, sum_xl);
        const auto better = hn::Gt(gain, best_gain);
        best_gain = hn::IfThenElse(better, gain, best_gain);
        best_scale = hn::IfThenElse(better, s, best_scale);
      }
      store(best_scale, scale + g);
    }
  });
}

// What both kinds of pick share: error(k, inverse..) of every candidate, and the best.
template <class Error>
HWY_INLINE void pick(int count, int64_t g, int32_t* best, float* error, Error&& error_of) {
  VF best_error = error_of(0), best_index = hn::Zero(df);
  for (int k = 1; k < count; ++k) {
    const VF e = error_of(k);
    const auto better = hn::Lt(e, best_error);
    best_error = hn::IfThenElse(better, e, best_error);
    best_index = hn::IfThenElse(better, hn::Set(df, static_cast<float>(k)), best_index);
  }
  store(best_error, error + g);
  hn::StoreU(hn::ConvertTo(DI(), best_index), DI(), best + g);
}

template <bool weighted>
void pick_affine_groups(const float* x, const float* w, int n, int most, int count, const float* scales,
                        const float* offsets, int32_t* best, float* error) {
  const VF zero = hn::Zero(df), levels = hn::Set(df, static_cast<float>(most));
  for (int64_t g = 0; g < kGroupLanes; g += kLanes) {
    pick(count, g, best, error, [&](int k) HWY_ATTR {
      const VF s = load(scales + int64_t{k} * kGroupLanes + g), m = load(offsets + int64_t{k} * kGroupLanes + g);
      const VF inverse = inverse_or_zero(s);
      VF sum = zero;
      for (int i = 0; i < n; ++i) {
        const int64_t at = int64_t{i} * kGroupLanes + g;
        const VF v = hn::Sub(load(x + at), m);
        const VF l = nearest_integer(hn::Min(hn::Max(hn::Mul(v, inverse), zero), levels));
        const VF d = hn::Sub(v, hn::Mul(s, l));
        sum = hn::Add(sum, hn::Mul(weigh<weighted>(d, w, at), d));
      }
      return sum;
    });
  }
}

void pick_affine(const float* x, const float* w, int n, int most, int count, const float* scales, const float* offsets,
                 int32_t* best, float* error) {
  if (w != nullptr) {
    pick_affine_groups<true>(x, w, n, most, count, scales, offsets, best, error);
  } else {
    pick_affine_groups<false>(x, w, n, most, count, scales, offsets, best, error);
  }
}

void pick_scale(const float* x, const float* w, int n, Levels levels, int count, const float* scales, int32_t* best,
                float* error) {
  with_levels(levels, w, [&](const auto& nearest, auto weighted) HWY_ATTR {
    for (int64_t g = 0; g < kGroupLanes; g += kLanes) {
      pick(count, g, best, error, [&](int k) HWY_ATTR {
        const VF s = load(scales + int64_t{k} * kGroupLanes + g);
        const VF inverse = inverse_or_zero(s);
        VF sum = hn::Zero(df);
        for (int i = 0; i < n; ++i) {
          const int64_t at = int64_t{i} * kGroupLanes + g;
          const VF v = load(x + at);
          const VF d = hn::Sub(v, hn::Mul(s, nearest(hn::Mul(v, inverse))));
          sum = hn::Add(sum, hn::Mul(weigh<decltype(weighted)::value>(d, w, at), d));
        }
        return sum;
      });
    }
  });
}

HWY_INLINE void store_codes(VF l, int8_t* codes) {
  const hn::Rebind<int8_t, DF> d8;
  const hn::Rebind<int16_t, DF> d16;
  hn::StoreU(hn::DemoteTo(d8, hn::DemoteTo(d16, hn::ConvertTo(DI(), l))), d8, codes);
}

template <bool weighted, class Code>
HWY_INLINE void encode(const float* x, const float* w, int n, int64_t g, int8_t* codes, GroupSums* sums, Code&& code_of) {
  if (sums == nullptr) {
    for (int i = 0; i < n; ++i) {
      const int64_t at = int64_t{i} * kGroupLanes + g;
      store_codes(code_of(load(x + at)), codes + at);
    }
    return;
  }
  const VF zero = hn::Zero(df);
  VF sum_l = zero, sum_ll = zero, sum_xl = zero, sum_x = zero, sum_xx = zero, sum_w = zero;
  for (int i = 0; i < n; ++i) {
    const int64_t at = int64_t{i} * kGroupLanes + g;
    const VF v = load(x + at);
    const VF l = code_of(v);
    store_codes(l, codes + at);
    const VF wl = weigh<weighted>(l, w, at);
    sum_l = hn::Add(sum_l, wl);
    sum_ll = hn::Add(sum_ll, hn::Mul(wl, l));
    sum_xl = hn::Add(sum_xl, hn::Mul(wl, v));
    const VF wx = weigh<weighted>(v, w, at);
    sum_x = hn::Add(sum_x, wx);
    sum_xx = hn::Add(sum_xx, hn::Mul(wx, v));
    if constexpr (weighted) sum_w = hn::Add(sum_w, load(w + at));
  }
  if constexpr (!weighted) sum_w = hn::Set(df, static_cast<float>(n));
  store(sum_xl, sums->xl + g);
  store(sum_ll, sums->ll + g);
  store(sum_l, sums->l + g);
  store(sum_x, sums->x + g);
  store(sum_xx, sums->xx + g);
  store(sum_w, sums->one + g);
}

template <bool weighted>
void encode_affine_groups(const float* x, const float* w, int n, int most, const float* scale, const float* offset,
                          int8_t* codes, GroupSums* sums) {
  const VF zero = hn::Zero(df), levels = hn::Set(df, static_cast<float>(most));
  for (int64_t g = 0; g < kGroupLanes; g += kLanes) {
    const VF inverse = inverse_or_zero(load(scale + g)), m = load(offset + g);
    encode<weighted>(x, w, n, g, codes, sums, [&](VF v) HWY_ATTR {
      return nearest_integer(hn::Min(hn::Max(hn::Mul(hn::Sub(v, m), inverse), zero), levels));
    });
  }
}

void encode_affine(const float* x, const float* w, int n, int most, const float* scale, const float* offset, int8_t* codes,
                   GroupSums* sums) {
  if (w != nullptr) {
    encode_affine_groups<true>(x, w, n, most, scale, offset, codes, sums);
  } else {
    encode_affine_groups<false>(x, w, n, most, scale, offset, codes, sums);
  }
}

void encode_scale(const float* x, const float* w, int n, Levels levels, const float* scale, int8_t* codes,
                  GroupSums* sums) {
  with_levels(levels, w, [&](const auto& nearest, auto weighted) HWY_ATTR {
    for (int64_t g = 0; g < kGroupLanes; g += kLanes) {
      const VF inverse = inverse_or_zero(load(scale + g));
      encode<decltype(weighted)::value>(x, w, n, g, codes, sums,
                                        [&](VF v) HWY_ATTR { return nearest(hn::Mul(v, inverse)); });
    }
  });
}

// Magnitude a, not above f16's largest, to the nearest f16, ties to even.
HWY_INLINE VF magnitude_to_f16(VF a) {
  const auto bits = hn::BitCast(du, a);
  const auto odd = hn::And(hn::ShiftRight<13>(bits), hn::Set(du, 1u));
  const auto rounded = hn::And(hn::Add(bits, hn::Add(odd, hn::Set(du, 0xFFFu))), hn::Set(du, 0xFFFFE000u));
  // Below 2^-14 f16 has steps of 2^-24, which are float's steps between 1/2 and 1.
  const VF half = hn::Set(df, 0.5f);
  const VF subnormal = hn::Sub(hn::Add(a, half), half);
  return hn::IfThenElse(hn::Lt(a, hn::Set(df, 0x1p-14f)), subnormal, hn::BitCast(df, rounded));
}

void nearest_f16(const float* wanted, float* nearest) {
  const VF most = hn::Set(df, 65504.0f), least_normal = hn::Set(df, 0x1p-14f), step = hn::Set(df, 0x1p-24f);
  const auto ulp = hn::Set(du, 0x2000u);
  for (int64_t g = 0; g < kGroupLanes; g += kLanes) {
    const VF v = load(wanted + g);
    const VF a = hn::Min(magnitude_to_f16(hn::Min(hn::Abs(v), most)), most);
    const VF beyond = hn::IfThenElse(hn::Lt(a, least_normal), hn::Add(a, step),
                                     hn::BitCast(df, hn::Add(hn::BitCast(du, a), ulp)));
    const VF before = hn::IfThenElse(hn::Gt(a, least_normal), hn::BitCast(df, hn::Sub(hn::BitCast(du, a), ulp)),
                                     hn::Max(hn::Sub(a, step), hn::Zero(df)));
    // Never minus zero.
    const auto with_sign = [&](VF magnitude) HWY_ATTR { return hn::Add(hn::CopySign(magnitude, v), hn::Zero(df)); };
    store(with_sign(a), nearest + g);
    store(with_sign(hn::Min(beyond, most)), nearest + kGroupLanes + g);
    store(with_sign(before), nearest + 2 * kGroupLanes + g);
  }
}

void grid_products(const float* wx, const float* w, const float* grid, const float* squares, int dims, int entries,
                   float* products, float* norms) {
  for (int64_t e = 0; e < entries; e += kLanes) {
    VF product = hn::Zero(df), norm = product;
    const int64_t tile = e / kGroupLanes * dims * kGroupLanes + e % kGroupLanes;
    for (int i = 0; i < dims; ++i) {
      const int64_t at = tile + int64_t{i} * kGroupLanes;
      product = hn::Add(product, hn::Mul(hn::Set(df, wx[i]), load(grid + at)));
      norm = hn::Add(norm, hn::Mul(hn::Set(df, w[i]), load(squares + at)));
    }
    store(product, products + e);
    store(norm, norms + e);
  }
}

int grid_best(const float* products, const float* norms, int entries, float scale) {
  const VF twice = hn::Set(df, 2.0f), s = hn::Set(df, scale), step = hn::Set(df, static_cast<float>(kLanes));
  VF best = hn::Set(df, -3e38f), best_index = hn::Zero(df), index = hn::Iota(df, 0);
  for (int64_t e = 0; e < entries; e += kLanes) {
    const VF gain = hn::Sub(hn::Mul(twice, load(products + e)), hn::Mul(s, load(norms + e)));
    const auto better = hn::Gt(gain, best);
    best = hn::IfThenElse(better, gain, best);
    best_index = hn::IfThenElse(better, index, best_index);
    index = hn::Add(index, step);
  }
  // Of lanes with the same gain the one that was there first.
  const VF most = hn::MaxOfLanes(df, best);
  return static_cast<int>(
      hn::GetLane(hn::MinOfLanes(df, hn::IfThenElse(hn::Ge(best, most), best_index, hn::Set(df, 1e9f)))));
}

QuantizeKernels make_quantize_table() {
  QuantizeKernels table{};
  table.fit_affine = fit_affine;
  table.fit_scale = fit_scale;
  table.pick_affine = pick_affine;
  table.pick_scale = pick_scale;
  table.encode_affine = encode_affine;
  table.encode_scale = encode_scale;
  table.nearest_f16 = nearest_f16;
  table.grid_products = grid_products;
  table.grid_best = grid_best;
  return table;
}
