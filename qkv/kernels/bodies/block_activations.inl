// Activations rounded to bytes.

// A group of smaller values counts as zeros: the inverse of its scale would not be finite.
void round_activations(const float* x, int64_t n, int8_t* codes, float* scales, float* sums16, float* sums32, int32_t* code_sums16) {
  const hn::Rebind<int16_t, DF> d16;
  const hn::Rebind<int8_t, DF> d8;
  for (int64_t g = 0; g < n / 32; ++g) {
    const float* in = x + 32 * g;
    VF largest = hn::Zero(df), nothing = hn::Zero(df);
    for (int64_t i = 0; i < 32; i += kLanes) {
      const VF v = load(in + i);
      largest = hn::Max(largest, hn::Abs(v));
      nothing = hn::MulAdd(v, hn::Zero(df), nothing);
    }
    const float scale = hn::GetLane(hn::MaxOfLanes(df, largest)) / 127.0f + hn::GetLane(hn::SumOfLanes(df, nothing));
    const bool zeros = !(scale >= kLeastActivationScale);  // NaN, too
    const VF inverse = hn::Set(df, 1.0f / scale);
    int32_t sums[2];
    for (int64_t part = 0; part < 2; ++part) {
      auto sum = hn::Zero(DI());
      for (int64_t i = 16 * part; i < 16 * (part + 1); i += kLanes) {
        const auto q = zeros ? hn::Zero(DI()) : hn::NearestInt(hn::Mul(load(in + i), inverse));
        sum = hn::Add(sum, q);
        hn::StoreU(hn::DemoteTo(d8, hn::DemoteTo(d16, q)), d8, codes + 32 * g + i);
      }
      sums[part] = hn::GetLane(hn::SumOfLanes(DI(), sum));
      code_sums16[2 * g + part] = sums[part];
      sums16[2 * g + part] = scale * static_cast<float>(sums[part]);
    }
    scales[g] = scale;
    sums32[g] = scale * static_cast<float>(sums[0] + sums[1]);
  }
}
