// Rows of blocks as floats, and their products with float activations.

// Unpacks one block and calls body(i, values i ... i + kLanes - 1) in order.
template <class Block, class Body>
HWY_INLINE void for_each_vector(const Block& block, Body&& body) {
  using C = Codes<Block>;
  HWY_ALIGN int8_t codes[Block::length];
  HWY_ALIGN float scales[16], offsets[16];
  put_codes(block, codes);
  C::scales(block, scales, offsets);
  for (int64_t g = 0; g < Block::length / C::group; ++g) {
    const VF scale = hn::Set(df, scales[g]);
    const VF offset = C::has_offset ? hn::Set(df, offsets[g]) : scale;
    for (int64_t i = g * C::group; i < (g + 1) * C::group; i += kLanes) {
      VF value = hn::Mul(scale, code_floats(codes + i));
      if constexpr (C::has_offset) value = hn::Add(value, offset);
      body(i, value);
    }
  }
}

template <class Block>
void dequantize_row(const void* blocks, float* out, int64_t n) {
  const auto* block = static_cast<const Block*>(blocks);
  for (int64_t first = 0; first < n; first += Block::length, ++block) {
    for_each_vector(*block, [&](int64_t i, VF value) { hn::StoreU(value, df, out + first + i); });
  }
}

// y[t * y_stride] = row . x[t] for `count` <= tokens rows of x; values come from `each(first, body)`, block by block.
template <int tokens, class Each>
HWY_INLINE void row_product(Each&& each, const float* x, float* y, int64_t cols, int64_t length, int64_t count, int64_t y_stride) {
  VF sum[4];  // of each token; a token alone has four that take turns, so that additions overlap
  const float* row[tokens];
  for (VF& s : sum) s = hn::Zero(df);
  for (int t = 0; t < tokens; ++t) row[t] = x + (t < count ? t : 0) * cols;
  for (int64_t first = 0; first < cols; first += length) {
    each(first, [&](int64_t i, VF value) HWY_ATTR {
      if constexpr (tokens == 1) {
        const VF next = hn::MulAdd(value, load(row[0] + first + i), sum[0]);
        sum[0] = sum[1];
        sum[1] = sum[2];
        sum[2] = sum[3];
        sum[3] = next;
      } else {
        for (int t = 0; t < tokens; ++t) sum[t] = hn::MulAdd(value, load(row[t] + first + i), sum[t]);
      }
    });
  }
  if constexpr (tokens == 1) sum[0] = hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
  for (int t = 0; t < count; ++t) y[t * y_stride] = hn::GetLane(hn::SumOfLanes(df, sum[t]));
}

template <class Each>
HWY_INLINE void rows_of_x(Each&& each, const float* x, float* y, int64_t cols, int64_t length, int64_t x_rows, int64_t y_stride) {
  if (x_rows == 1) return row_product<1>(each, x, y, cols, length, 1, y_stride);
  for (int64_t t = 0; t < x_rows; t += 4) {
    row_product<4>(each, x + t * cols, y + t * y_stride, cols, length, x_rows - t < 4 ? x_rows - t : 4, y_stride);
  }
}

template <class Block>
void block_product(const void* blocks, const float* x, float* y, int64_t rows, int64_t cols, int64_t x_rows, int64_t y_stride) {
  const auto* row = static_cast<const Block*>(blocks);
  for (int64_t r = 0; r < rows; ++r, row += cols / Block::length) {
    const auto each = [&](int64_t first, auto&& body) HWY_ATTR { for_each_vector(row[first / Block::length], body); };
    rows_of_x(each, x, y + r, cols, Block::length, x_rows, y_stride);
  }
}

// Types without vector code of their own: the plain dequantization, a block at a time.
template <class Block>
void plain_product(const void* blocks, const float* x, float* y, int64_t rows, int64_t cols, int64_t x_rows, int64_t y_stride) {
  constexpr int64_t length = Block::length;
  const auto dequantize = plain_dequantize(Block::type);
  const auto* row = static_cast<const Block*>(blocks);
  for (int64_t r = 0; r < rows; ++r, row += cols / length) {
    const auto each = [&](int64_t first, auto&& body) HWY_ATTR {
      HWY_ALIGN float values[length];
      dequantize(row + first / length, values, length);
      for (int64_t i = 0; i < length; i += kLanes) body(i, load(values + i));
    };
    rows_of_x(each, x, y + r, cols, length, x_rows, y_stride);
  }
}
