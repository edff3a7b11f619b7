// Between storage types.

template <typename From, typename To>
void convert(const From* x, To* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(load(x + i), y + i);
  for (; i < n; ++i) y[i] = from_float<To>(to_float(x[i]));
}
