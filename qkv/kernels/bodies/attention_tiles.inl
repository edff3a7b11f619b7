// The parts flash attention is made of: a scratch allocator, tiles packed as float, and one register-blocked
// product that all seven matrix products of forward and backward go through.

// Largest tiles: rows are (query, head) pairs, columns are keys. Multiples of the product's blocks on every
// set.
constexpr int64_t kTileRows = 96;
constexpr int64_t kTileKeys = 96;

// Accumulators of one product block: kBlockRows x 2 vectors, with registers left for two loads and a
// broadcast.
constexpr bool kManyRegisters = kLanes >= 16 || HWY_ARCH_ARM;
constexpr int64_t kBlockRows = kManyRegisters ? 12 : 6;
constexpr int64_t kBlockColumns = 2 * kLanes;
static_assert(kTileRows % kBlockRows == 0 && kTileKeys % kBlockRows == 0 && kTileKeys % kBlockColumns == 0);

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Elements from one tile row to the next for rows of n: an odd number of cache lines, so that rows spread
// over all L1 sets.
constexpr int64_t tile_stride(int64_t n) {
  return (round_up(n, 16) / 16 | 1) * 16;
}

// Hands out 64-byte aligned pieces of the caller's scratch; with a null base it only counts.
class Scratch {
 public:
  explicit Scratch(void* base) : base_(static_cast<float*>(base)) {}
  float* take(int64_t n) {
    float* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(n, 16);
    return piece;
  }
  size_t bytes() const { return static_cast<size_t>(used_) * sizeof(float); }

 private:
  float* base_;
  int64_t used_ = 0;
};

// Rows of one head lie far apart, where hardware does not see the next one coming.
constexpr int64_t kPrefetchRows = 16;

template <typename T>
HWY_INLINE void prefetch_row(const T* row, int64_t n) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += line) __builtin_prefetch(row + i);
}

// to[i] = factor * from[i] for i < n, zeros up to the next multiple of kLanes.
template <typename T>
HWY_INLINE void copy_row(const T* from, float factor, int64_t n, float* to) {
  const VF f = hn::Set(df, factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(hn::Mul(f, load(from + i)), to + i);
  if (i < n) store(hn::Mul(f, load_n(from + i, n - i)), to + i);
}

// A tile of `rows` rows from every `from_stride`: to (rows, stride), columns padded with zeros to a multiple
// of kLanes.
template <typename T>
void copy_tile(const T* from, int64_t from_stride, int64_t rows, int64_t columns, float* to, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    if (r + kPrefetchRows < rows) prefetch_row(from + (r + kPrefetchRows) * from_stride, columns);
    copy_row(from + r * from_stride, 1.0f, columns, to + r * stride);
  }
}

#if HWY_TARGET != HWY_SCALAR
// Four elements p[0..4) for each 128-bit block of a vector of D, the blocks 4 * row_stride apart.
template <typename D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const float* p, int64_t row_stride) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, p);
  } else {
    const hn::Half<D> half;
    constexpr int64_t lower_rows = static_cast<int64_t>(hn::MaxLanes(D())) / 2;
    return hn::Combine(d, load_blocks(half, p + lower_rows * row_stride, row_stride),
                       load_blocks(half, p, row_stride));
  }
}
template <typename D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const bf16* p, int64_t row_stride) {
  const hn::Rebind<uint16_t, D> d16;
  if constexpr (hn::MaxLanes(D()) == 4) {
    const hn::RebindToUnsigned<D> d32;
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  } else {
    const hn::Half<D> half;
    constexpr int64_t lower_rows = static_cast<int64_t>(hn::MaxLanes(D())) / 2;
    return hn::Combine(d, load_blocks(half, p + lower_rows * row_stride, row_stride),
                       load_blocks(half, p, row_stride));
  }
}

// Transposes kLanes rows and 4 columns: to[c * stride + r] = from[r * from_stride + c].
template <typename T>
HWY_INLINE void transpose_four_columns(const T* from, int64_t from_stride, float* to, int64_t stride) {
  const VF a = load_blocks(df, from, from_stride);
  const VF b = load_blocks(df, from + from_stride, from_stride);
  const VF c = load_blocks(df, from + 2 * from_stride, from_stride);
  const VF d = load_blocks(df, from + 3 * from_stride, from_stride);
  const VF ac_low = hn::InterleaveLower(df, a, c), ac_high = hn::InterleaveUpper(df, a, c);
  const VF bd_low = hn::InterleaveLower(df, b, d), bd_high = hn::InterleaveUpper(df, b, d);
  store(hn::InterleaveLower(df, ac_low, bd_low), to);
  store(hn::InterleaveUpper(df, ac_low, bd_low), to + stride);
  store(hn::InterleaveLower(df, ac_high, bd_high), to + 2 * stride);
  store(hn::InterleaveUpper(df, ac_high, bd_high), to + 3 * stride);
}
#endif

// The transpose of a tile: to (columns, stride), each row padded with zeros to a multiple of kLanes.
template <typename T>
void transpose_tile(const T* from, int64_t from_stride, int64_t rows, int64_t columns, float* to,
                    int64_t stride) {
  const int64_t whole_rows = rows / kLanes * kLanes;
  int64_t whole_columns = 0;
#if HWY_TARGET != HWY_SCALAR
  whole_columns = columns / 4 * 4;
  for (int64_t r = 0; r < whole_rows; r += kLanes) {
    const int64_t ahead = r + kPrefetchRows;
    for (int64_t i = ahead; i < ahead + kLanes && i < rows; ++i)
      prefetch_row(from + i * from_stride, columns);
    for (int64_t c = 0; c < whole_columns; c += 4) {
      transpose_four_columns(from + r * from_stride + c, from_stride, to + c * stride + r, stride);
    }
  }
#endif
  const int64_t padded_rows = round_up(rows, kLanes);
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t done = c < whole_columns ? whole_rows : 0;
    for (int64_t r = done; r < rows; ++r) to[c * stride + r] = to_float(from[r * from_stride + c]);
    for (int64_t r = rows; r < padded_rows; ++r) to[c * stride + r] = 0.0f;
  }
}

// [begin, end)
struct Extent {
  int64_t begin = 0, end = 0;
  bool empty() const { return begin >= end; }
};

// Rows of memory that will be wanted soon, fetched towards the caches a few lines at a time between blocks of
// a product.
class Prefetch {
 public:
  void clear() { regions_ = 0; }
  // `rows` rows of `columns` elements, `stride` elements apart.
  template <typename T>
  void add(const T* first, int64_t stride, int64_t rows, int64_t columns) {
    if (rows <= 0 || regions_ == kRegions) return;
    region_[regions_++] = {reinterpret_cast<const char*>(first), stride * static_cast<int64_t>(sizeof(T)),
                           columns * static_cast<int64_t>(sizeof(T)), rows};
    at_ = 0;
  }
  HWY_INLINE void step() {
    if (regions_ == 0) return;
    Region& region = region_[regions_ - 1];
    for (int i = 0; i < kLinesPerStep; ++i) __builtin_prefetch(region.first + at_ + i * kLine, 0, 2);
    at_ += kLinesPerStep * kLine;
    if (at_ >= region.columns) {
      at_ = 0;
      region.first += region.stride;
      if (--region.rows == 0) --regions_;
    }
  }

 private:
  struct Region {
    const char* first;
    int64_t stride, columns, rows;  // bytes, bytes, count
  };
  static constexpr int kRegions = 8, kLinesPerStep = 4, kLine = 64;
  Region region_[kRegions];
  int64_t regions_ = 0, at_ = 0;
};

// What becomes of the product: c = product, c = c + product, or c[r] = rescale[r] * c[r] + product.
enum class Update { overwrite, accumulate, rescale };

// One block of C = A B: kRows rows times kVectors vectors. A is read one broadcast at a time: element (r, k)
// at a[r * a_stride + k], or at a[k * a_stride + r] if transposed. Row k of B is at b + k * b_stride.
template <Update kUpdate, bool kTransposed, int kRows, int kVectors>
HWY_INLINE void product_block(const float* HWY_RESTRICT a, int64_t a_stride, const float* HWY_RESTRICT b,
                              int64_t b_stride, float* HWY_RESTRICT c, int64_t c_stride, int64_t depth,
                              const float* HWY_RESTRICT rescale) {
  VF sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(df);
  }
  for (int64_t k = 0; k < depth; ++k) {
    VF row[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const VF x = hn::Set(df, kTransposed ? a[r] : a[r * a_stride]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(x, row[v], sum[r][v]);
    }
    a += kTransposed ? a_stride : 1;
    b += b_stride;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + r * c_stride + v * kLanes;
      if constexpr (kUpdate == Update::accumulate) sum[r][v] = hn::Add(load(to), sum[r][v]);
      if constexpr (kUpdate == Update::rescale)
        sum[r][v] = hn::MulAdd(load(to), hn::Set(df, rescale[r]), sum[r][v]);
      store(sum[r][v], to);
    }
  }
}

// `rows` (at most kBlockRows) times kVectors vectors: whole blocks, half blocks, single rows.
template <Update kUpdate, bool kTransposed, int kVectors>
HWY_INLINE void product_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                             int64_t c_stride, int64_t rows, int64_t depth, const float* rescale) {
  const int64_t a_step = kTransposed ? 1 : a_stride;
  int64_t r = 0;
  const auto run = [&]<int kRows>() {
    const float* factors = kUpdate == Update::rescale ? rescale + r : nullptr;
    product_block<kUpdate, kTransposed, kRows, kVectors>(a + r * a_step, a_stride, b, b_stride,
                                                         c + r * c_stride, c_stride, depth, factors);
    r += kRows;
  };
  if (rows == kBlockRows) return run.template operator()<kBlockRows>();
  while (rows - r >= kBlockRows / 2) run.template operator()<kBlockRows / 2>();
  while (r < rows) run.template operator()<1>();
}

// C (rows, columns) = A (rows, depth) B (depth, columns), all float tiles in scratch. Columns are a multiple
// of kLanes. For each block of kBlockRows rows, column_extents (null: all) says which columns are wanted and
// depth_extents (null: [0, depth)) where A is not zero; columns outside are left alone. Between blocks it
// fetches what `ahead` wants.
template <Update kUpdate, bool kTransposed>
HWY_NOINLINE void tile_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                               int64_t c_stride, int64_t rows, int64_t columns, int64_t depth,
                               const Extent* column_extents, const Extent* depth_extents, Prefetch& ahead,
                               const float* rescale = nullptr) {
  for (int64_t column = 0; column < columns; column += kBlockColumns) {
    for (int64_t r = 0; r < rows; r += kBlockRows) {
      const int64_t block = r / kBlockRows;
      if (column_extents != nullptr) {
        const Extent wanted = column_extents[block];
        if (wanted.empty() || wanted.begin >= column + kBlockColumns || wanted.end <= column) continue;
      }
      const Extent along = depth_extents != nullptr ? depth_extents[block] : Extent{0, depth};
      if (along.empty()) continue;
      ahead.step();
      const float* a_block = a + (kTransposed ? r + along.begin * a_stride : r * a_stride + along.begin);
      const float* b_block = b + along.begin * b_stride + column;
      float* c_block = c + r * c_stride + column;
      const int64_t block_rows = rows - r < kBlockRows ? rows - r : kBlockRows;
      const float* factors = kUpdate == Update::rescale ? rescale + r : nullptr;
      if (columns - column >= kBlockColumns) {
        product_rows<kUpdate, kTransposed, 2>(a_block, a_stride, b_block, b_stride, c_block, c_stride,
                                              block_rows, along.end - along.begin, factors);
      } else {
        product_rows<kUpdate, kTransposed, 1>(a_block, a_stride, b_block, b_stride, c_block, c_stride,
                                              block_rows, along.end - along.begin, factors);
      }
    }
  }
}
