// Scores of one attention tile: which keys each row sees, softcap and ALiBi, and the exponential. Scores are
// kept in base 2: queries are packed times scale * log2(e), so that e^score is one exp2.

constexpr float kMinusInfinity = -__builtin_huge_valf();

// The (query, head) pairs of one call as rows: query by query, the group's heads within it.
struct AttentionRows {
  int64_t group, head_begin, q_begin, count;
  int64_t shift;  // query i sits at key position i + shift
  int64_t window, n_k;
  bool causal;
  int64_t least = 0;  // nobody sees a key before it

  int64_t query(int64_t row) const { return q_begin + row / group; }
  int64_t head(int64_t row) const { return head_begin + row % group; }

  // Keys that a row sees.
  Extent keys_of(int64_t row) const {
    const int64_t position = query(row) + shift;
    const int64_t begin = window > 0 ? position - window + 1 : 0;
    const int64_t end = causal ? position + 1 : n_k;
    return {begin < least ? least : begin, end > n_k ? n_k : end};
  }
  // Rows that see any of keys [begin, end).
  Extent rows_of(int64_t begin, int64_t end) const {
    const int64_t first = causal ? (begin - shift - q_begin) * group : 0;
    const int64_t last = window > 0 ? (end - 1 + window - shift - q_begin) * group : count;
    return {first < 0 ? 0 : first, last > count ? count : last};
  }
};

template <typename T>
HWY_INLINE AttentionRows attention_rows(const AttentionSpec& spec, const AttentionSequence<T>& sequence,
                                        int head_begin, int head_end, int64_t q_begin, int64_t q_end) {
  AttentionRows rows;
  rows.group = head_end - head_begin;
  rows.head_begin = head_begin;
  rows.q_begin = q_begin;
  rows.count = rows.group * (q_end - q_begin);
  rows.shift = sequence.n_k - sequence.n_q;
  rows.window = spec.window;
  rows.n_k = sequence.n_k;
  rows.causal = spec.causal;
  return rows;
}

// A tile of rows x keys and, for each block of product rows, what of it is visible.
struct ScoreTile {
  int64_t first_row, rows, first_key, keys;
  bool whole;                                   // every row sees every key, and keys fill whole vectors
  Extent keys_of_rows[kTileRows / kBlockRows];  // by block of rows
  Extent rows_of_keys[kTileKeys / kBlockRows];  // by block of keys

  int64_t padded_keys() const { return round_up(keys, kLanes); }

  Extent local_keys(Extent seen) const {
    const int64_t begin = seen.begin - first_key, end = seen.end - first_key;
    const Extent local = {begin < 0 ? 0 : begin, end > keys ? keys : end};
    return local.empty() ? Extent{} : local;
  }
  // Keys of the tile that a row sees.
  Extent keys_of(const AttentionRows& all, int64_t r) const { return local_keys(all.keys_of(first_row + r)); }
  // Columns of row r that the score product fills: those its block sees, in whole vectors.
  Extent computed(int64_t r) const {
    const Extent seen = keys_of_rows[r / kBlockRows];
    return {seen.begin / kLanes * kLanes, round_up(seen.end, kLanes)};
  }
};

HWY_INLINE ScoreTile score_tile(const AttentionRows& all, int64_t first_row, int64_t rows, int64_t first_key,
                                int64_t keys) {
  ScoreTile tile;
  tile.first_row = first_row;
  tile.rows = rows;
  tile.first_key = first_key;
  tile.keys = keys;
  const Extent first = all.keys_of(first_row), last = all.keys_of(first_row + rows - 1);
  tile.whole = keys % kLanes == 0 && last.begin <= first_key && first.end >= first_key + keys;
  for (int64_t r = 0; r < rows; r += kBlockRows) {
    const int64_t end = r + kBlockRows < rows ? r + kBlockRows : rows;
    const Extent seen = {all.keys_of(first_row + r).begin, all.keys_of(first_row + end - 1).end};
    tile.keys_of_rows[r / kBlockRows] = tile.whole ? Extent{0, keys} : tile.local_keys(seen);
  }
  for (int64_t k = 0; k < keys; k += kBlockRows) {
    const int64_t end = k + kBlockRows < keys ? k + kBlockRows : keys;
    Extent seeing =
        tile.whole ? Extent{first_row, first_row + rows} : all.rows_of(first_key + k, first_key + end);
    seeing.begin = seeing.begin < first_row ? 0 : seeing.begin - first_row;
    seeing.end = seeing.end - first_row > rows ? rows : seeing.end - first_row;
    tile.rows_of_keys[k / kBlockRows] = seeing.empty() ? Extent{} : seeing;
  }
  return tile;
}

HWY_INLINE void fill_row(float* row, int64_t begin, int64_t end, float value) {
  for (int64_t i = begin; i < end; ++i) row[i] = value;
}

// What happens to scores beside scaling. A template argument, not a flag in the loop: GCC 12 turns a branch on a bool around
// 512-bit values into a blend of the first lane only.
enum class Shaping { none, slope, cap_and_slope };

HWY_INLINE Shaping shaping_of(const AttentionSpec& spec) {
  return spec.softcap > 0 ? Shaping::cap_and_slope : spec.alibi_slopes != nullptr ? Shaping::slope : Shaping::none;
}

// Softcap (Gemma 2, arXiv 2408.00118) and ALiBi (Press et al., arXiv 2108.12409) of one row, in base 2.
template <Shaping kShaping>
struct ScoreShape {
  VF cap, inverse_cap, slope, position;

  ScoreShape(const AttentionSpec& spec, const AttentionRows& all, const ScoreTile& tile, int64_t r)
      : cap(hn::Set(df, spec.softcap * kLog2E)),
        inverse_cap(hn::Set(df, kShaping == Shaping::cap_and_slope ? 1.0f / (spec.softcap * kLog2E) : 0.0f)),
        slope(hn::Set(df, spec.alibi_slopes == nullptr
                              ? 0.0f
                              : spec.alibi_slopes[all.head(tile.first_row + r)] * kLog2E)),
        position(
            hn::Set(df, static_cast<float>(all.query(tile.first_row + r) + all.shift - tile.first_key))) {}

  // The score of keys j... of the tile; `derivative` becomes d score / d (scaled product).
  HWY_INLINE VF apply(VF s, int64_t j, VF& derivative) const {
    derivative = hn::Set(df, 1.0f);
    if constexpr (kShaping == Shaping::cap_and_slope) {
      const VF t = tanh_vector(hn::Mul(s, inverse_cap));
      s = hn::Mul(cap, t);
      derivative = hn::NegMulAdd(t, t, derivative);
    }
    return hn::NegMulAdd(slope, hn::Sub(position, hn::Iota(df, static_cast<float>(j))), s);
  }
};

// Packs rows [first, first + count) of a tensor with head_dim elements per head: to (count, stride), times
// factor.
template <typename T>
void copy_attention_rows(const AttentionRows& all, const T* from, int64_t from_stride, int64_t head_dim,
                         int64_t first, int64_t count, float factor, float* to, int64_t stride) {
  for (int64_t r = 0; r < count; ++r) {
    const T* row = from + all.query(first + r) * from_stride + all.head(first + r) * head_dim;
    if (r + kPrefetchRows * all.group < count) prefetch_row(row + kPrefetchRows * from_stride, head_dim);
    copy_row(row, factor, head_dim, to + r * stride);
  }
}
