// Optimizer steps and norms of gradients.

double sum_of_squares(const float* x, int64_t n) {
  // Blocks in float, totals in double: as accurate as double throughout for blocks of a few thousand.
  double total = 0;
  for (int64_t i = 0; i < n; i += 2048) {
    const int64_t count = n - i < 2048 ? n - i : 2048;
    total += static_cast<double>(reduce(count, [](VF v) { return hn::Mul(v, v); }, x + i));
  }
  return total;
}

void adamw(const AdamWStep& step, float* parameter, const float* gradient, float* m, float* v, int64_t n) {
  const VF beta1 = hn::Set(df, step.beta1), rest1 = hn::Set(df, 1 - step.beta1);
  const VF beta2 = hn::Set(df, step.beta2), rest2 = hn::Set(df, 1 - step.beta2);
  const VF grad_scale = hn::Set(df, step.grad_scale);
  const VF eps = hn::Set(df, step.eps);
  // p <- p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps)
  const VF decay = hn::Set(df, 1 - step.lr * step.weight_decay);
  const VF rate = hn::Set(df, step.lr / step.bias_correction1);
  const VF inverse_root_c2 = hn::Set(df, 1 / std::sqrt(step.bias_correction2));
  const auto update = [&](VF p, VF g, VF& first, VF& second) {
    g = hn::Mul(g, grad_scale);
    first = hn::MulAdd(beta1, first, hn::Mul(rest1, g));
    second = hn::MulAdd(beta2, second, hn::Mul(rest2, hn::Mul(g, g)));
    const VF denominator = hn::MulAdd(hn::Sqrt(second), inverse_root_c2, eps);
    return hn::NegMulAdd(rate, hn::Div(first, denominator), hn::Mul(p, decay));
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    VF first = load(m + i), second = load(v + i);
    store(update(load(parameter + i), load(gradient + i), first, second), parameter + i);
    store(first, m + i);
    store(second, v + i);
  }
  if (i < n) {
    const int64_t rest = n - i;
    VF first = load_n(m + i, rest), second = load_n(v + i, rest);
    store_n(update(load_n(parameter + i, rest), load_n(gradient + i, rest), first, second), parameter + i, rest);
    store_n(first, m + i, rest);
    store_n(second, v + i, rest);
  }
}
