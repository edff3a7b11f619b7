// Cross-entropy of one row of logits, with its gradient in place.

float cross_entropy(float* logits, int64_t vocabulary, int64_t target, float label_smoothing, float z_loss, bool gradient,
                    float grad_scale, float* lse_out) {
  const float largest = reduce_max(logits, vocabulary);
  const VF shift = hn::Set(df, largest);
  const float target_logit = logits[target];
  const float sum_logits =
      label_smoothing > 0 ? reduce(vocabulary, [](VF z) { return z; }, logits) : 0.0f;

  // e^(z - max) replaces the logits when the gradient is wanted: one exponential per element either way.
  float sum;
  if (gradient) {
    VF a = hn::Zero(df), b = a;
    int64_t i = 0;
    for (; i + 2 * kLanes <= vocabulary; i += 2 * kLanes) {
      const VF e0 = exp_vector(hn::Sub(load(logits + i), shift));
      const VF e1 = exp_vector(hn::Sub(load(logits + i + kLanes), shift));
      store(e0, logits + i);
      store(e1, logits + i + kLanes);
      a = hn::Add(a, e0);
      b = hn::Add(b, e1);
    }
    sum = hn::GetLane(hn::SumOfLanes(df, hn::Add(a, b)));
    for (; i < vocabulary; ++i) {
      logits[i] = std::exp(logits[i] - largest);
      sum += logits[i];
    }
  } else {
    sum = 0;
    VF a = hn::Zero(df), b = a;
    int64_t i = 0;
    for (; i + 2 * kLanes <= vocabulary; i += 2 * kLanes) {
      a = hn::Add(a, exp_vector(hn::Sub(load(logits + i), shift)));
      b = hn::Add(b, exp_vector(hn::Sub(load(logits + i + kLanes), shift)));
    }
    sum = hn::GetLane(hn::SumOfLanes(df, hn::Add(a, b)));
    for (; i < vocabulary; ++i) sum += std::exp(logits[i] - largest);
  }
  const float lse = largest + std::log(sum);
  if (lse_out != nullptr) *lse_out = lse;
  const float n = static_cast<float>(vocabulary);
  float loss = (1 - label_smoothing) * (lse - target_logit) + z_loss * lse * lse;
  if (label_smoothing > 0) loss += label_smoothing * (lse - sum_logits / n);

  if (gradient) {
    // d/dz_i = (1 + 2 z_loss lse) softmax_i - (1 - eps) [i = target] - eps / V
    const VF factor = hn::Set(df, grad_scale * (1 + 2 * z_loss * lse) / sum);
    const VF uniform = hn::Set(df, -grad_scale * label_smoothing / n);
    map(logits, vocabulary, [=](VF e) { return hn::MulAdd(e, factor, uniform); }, static_cast<const float*>(logits));
    logits[target] -= grad_scale * (1 - label_smoothing);
  }
  return loss;
}
