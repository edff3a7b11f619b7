// Unpacking of block types into byte codes and the scales and offsets of their groups, so that
// value = scale * (code - raise) + offset, in two roundings; layouts in blocks.h. One struct per type:
//
//   group               values that share a scale
//   has_offset          whether there is an offset; raise is then 0
//   is_signed           whether codes may be negative; raise is then 0. All others are below 64
//   raise               what is to be taken off the codes
//   piece<p>(block, i)  codes of values 32 p + i ..., as many as DB32 has lanes
//   scales(block, s, m) writes the groups' scales and offsets, room for 16 each

using DB16 = hn::CappedTag<uint8_t, 16>;
using DB32 = hn::CappedTag<uint8_t, 32>;  // 16 lanes where vectors have no more
constexpr DB16 db16;
constexpr DB32 db32;
constexpr int64_t kBytes32 = static_cast<int64_t>(hn::MaxLanes(DB32()));
using VB16 = hn::Vec<DB16>;
using VB32 = hn::Vec<DB32>;

// (v >> bits) & mask in every byte; negative bits shift to the left.
template <int bits, class D, class V = hn::Vec<D>>
HWY_INLINE V field(D d, V v, uint8_t mask) {
  const hn::RepartitionToWide<D> wide;
  if constexpr (bits > 0) v = hn::BitCast(d, hn::ShiftRight<bits>(hn::BitCast(wide, v)));
  if constexpr (bits < 0) v = hn::BitCast(d, hn::ShiftLeft<-bits>(hn::BitCast(wide, v)));
  return hn::And(v, hn::Set(d, mask));
}

HWY_INLINE VB16 bytes16(const void* p) { return hn::LoadU(db16, static_cast<const uint8_t*>(p)); }
HWY_INLINE VB32 bytes32(const void* p) { return hn::LoadU(db32, static_cast<const uint8_t*>(p)); }
HWY_INLINE void put16(VB16 v, int8_t* q) { hn::StoreU(v, db16, reinterpret_cast<uint8_t*>(q)); }
HWY_INLINE void put32(VB32 v, int8_t* q) { hn::StoreU(v, db32, reinterpret_cast<uint8_t*>(q)); }

// An f16 in every lane.
HWY_INLINE VF half(f16 h) {
  const hn::Rebind<hwy::float16_t, DF> dh;
  return hn::PromoteTo(df, hn::BitCast(dh, hn::Set(DU16(), h.bits)));
}
HWY_INLINE float half_scalar(f16 h) { return hn::GetLane(half(h)); }

// kLanes codes as floats.
HWY_INLINE VF code_floats(const int8_t* q) {
  return hn::ConvertTo(df, hn::PromoteTo(DI(), hn::LoadU(hn::Rebind<int8_t, DF>(), q)));
}

// s[i] = factor * v[i] for the signed bytes [begin, end) of 16.
HWY_INLINE void scaled(VF factor, const int8_t* lanes, int64_t n, float* s) {
  for (int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::Mul(factor, code_floats(lanes + i)), df, s + i);
}
HWY_INLINE void scaled16(VF factor, VB16 v, float* s) {
  HWY_ALIGN int8_t lanes[16];
  put16(v, lanes);
  scaled(factor, lanes, 16, s);
}

// ---- nibbles in halves ----

// Codes of a "halves" group of 32: the low nibbles of 16 bytes, then the high ones.
template <class D = DB32>  // a template, so that the branch of other sets is not compiled
HWY_INLINE hn::Vec<D> nibble_halves(const uint8_t* qs, int64_t i) {
  const VB16 v = bytes16(qs);
  if constexpr (hn::MaxLanes(D()) == 32) {
    const hn::Repartition<uint16_t, DB16> wide;
    const VB16 high = hn::BitCast(db16, hn::ShiftRight<4>(hn::BitCast(wide, v)));
    return hn::And(hn::Combine(D(), high, v), hn::Set(D(), uint8_t{15}));
  } else {
    return i == 0 ? field<0>(db16, v, 15) : field<4>(db16, v, 15);
  }
}

HWY_INLINE VB32 looked_up(const std::array<int8_t, 16>& values, const uint8_t* qs, int64_t i) {
  const VB32 table = hn::LoadDup128(db32, reinterpret_cast<const uint8_t*>(&values));
  return hn::TableLookupBytes(table, nibble_halves(qs, i));
}

// Bit j of qh, as 16 in byte j, for the values from i on.
HWY_INLINE VB32 fifth_bits(const uint8_t* qh, int64_t i) {
  return hn::IfThenElseZero(hn::LoadMaskBits(db32, qh + i / 8), hn::Set(db32, uint8_t{16}));
}

template <class Block>
struct Codes;

// Of the types with one scale and no offset.
template <class Block, int kRaise>
struct SingleScale {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false, is_signed = kRaise == 0;
  static constexpr int raise = kRaise;
  static HWY_INLINE void scales(const Block& b, float* s, float*) { s[0] = half_scalar(b.d); }
};
// Of the types with one scale and one offset.
template <class Block>
struct ScaleAndOffset {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = true, is_signed = false;
  static constexpr int raise = 0;
  static HWY_INLINE void scales(const Block& b, float* s, float* m) {
    s[0] = half_scalar(b.d);
    m[0] = half_scalar(b.m);
  }
};

template <>
struct Codes<BlockQ4_0> : SingleScale<BlockQ4_0, 8> {
  template <int>
  static HWY_INLINE VB32 piece(const BlockQ4_0& b, int64_t i) {
    return nibble_halves(b.qs, i);
  }
};

template <>
struct Codes<BlockQ4_1> : ScaleAndOffset<BlockQ4_1> {
  template <int>
  static HWY_INLINE VB32 piece(const BlockQ4_1& b, int64_t i) {
    return nibble_halves(b.qs, i);
  }
};

template <>
struct Codes<BlockQ5_0> : SingleScale<BlockQ5_0, 16> {
  template <int>
  static HWY_INLINE VB32 piece(const BlockQ5_0& b, int64_t i) {
    return hn::Or(nibble_halves(b.qs, i), fifth_bits(b.qh, i));
  }
};

template <>
struct Codes<BlockQ5_1> : ScaleAndOffset<BlockQ5_1> {
  template <int>
  static HWY_INLINE VB32 piece(const BlockQ5_1& b, int64_t i) {
    return hn::Or(nibble_halves(b.qs, i), fifth_bits(b.qh, i));
  }
};

template <>
struct Codes<BlockQ8_0> : SingleScale<BlockQ8_0, 0> {
  template <int>
  static HWY_INLINE VB32 piece(const BlockQ8_0& b, int64_t i) {
    return bytes32(b.qs + i);
  }
};

template <>
struct Codes<BlockIq4Nl> : SingleScale<BlockIq4Nl, 0> {
  template <int>
  static HWY_INLINE VB32 piece(const BlockIq4Nl& b, int64_t i) {
    return looked_up(kIq4Values, b.qs, i);
  }
};

template <>
struct Codes<BlockMxfp4> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false, is_signed = true;
  static constexpr int raise = 0;
  template <int>
  static HWY_INLINE VB32 piece(const BlockMxfp4& b, int64_t i) {
    return looked_up(kMxfp4Values, b.qs, i);
  }
  static HWY_INLINE void scales(const BlockMxfp4& b, float* s, float*) {
    const uint32_t bits = b.e < 2 ? uint32_t{0x00200000} << b.e : static_cast<uint32_t>(b.e - 1) << 23;
    std::memcpy(s, &bits, sizeof(bits));
  }
};

// ---- 256 values ----

template <>
struct Codes<BlockQ2K> {
  static constexpr int64_t group = 16;
  static constexpr bool has_offset = true, is_signed = false;
  static constexpr int raise = 0;
  template <int p>
  static HWY_INLINE VB32 piece(const BlockQ2K& b, int64_t i) {
    return field<2 * (p % 4)>(db32, bytes32(b.qs + 32 * (p / 4) + i), 3);
  }
  static HWY_INLINE void scales(const BlockQ2K& b, float* s, float* m) {
    const VB16 v = bytes16(b.scales);
    scaled16(half(b.d), field<0>(db16, v, 15), s);
    scaled16(hn::Neg(half(b.dmin)), field<4>(db16, v, 15), m);
  }
};

// Four words of 6-bit scales: `low` in the low nibbles, and under each word the shift that brings its pair of high bits down.
using DU32x4 = hn::CappedTag<uint32_t, 4>;
constexpr DU32x4 du32x4;
HWY_INLINE hn::Vec<DU32x4> words(const void* p) {
  HWY_ALIGN uint32_t w[4];
  std::memcpy(w, p, sizeof(w));
  return hn::Load(du32x4, w);
}
HWY_INLINE hn::Vec<DU32x4> masked(hn::Vec<DU32x4> v, uint32_t mask) { return hn::And(v, hn::Set(du32x4, mask)); }

template <>
struct Codes<BlockQ3K> {
  static constexpr int64_t group = 16;
  static constexpr bool has_offset = false, is_signed = false;
  static constexpr int raise = 4;
  template <int p>
  static HWY_INLINE VB32 piece(const BlockQ3K& b, int64_t i) {
    const VB32 low = field<2 * (p % 4)>(db32, bytes32(b.qs + 32 * (p / 4) + i), 3);
    const VB32 high = field<p - 2>(db32, bytes32(b.hmask + i), 4);
    return hn::Or(low, high);
  }
  static HWY_INLINE void scales(const BlockQ3K& b, float* s, float*) {
    const auto w = words(reinterpret_cast<const uint8_t*>(&b) + offsetof(BlockQ3K, scales) - 4);  // and what is before them
    HWY_ALIGN constexpr uint32_t low_shifts[4] = {0, 0, 4, 4}, high_shifts[4] = {0, 2, 4, 6};
    const auto first = hn::CombineShiftRightBytes<4>(du32x4, w, w);  // words 1, 2, 3, 0
    const auto twice = hn::ConcatLowerLower(du32x4, first, first);
    const auto low = masked(hn::Shr(twice, hn::Load(du32x4, low_shifts)), 0x0F0F0F0F);
    const auto high = masked(hn::Shr(hn::Broadcast<3>(w), hn::Load(du32x4, high_shifts)), 0x03030303);
    const VB16 codes = hn::BitCast(db16, hn::Or(low, hn::ShiftLeft<4>(high)));
    scaled16(half(b.d), hn::Sub(codes, hn::Set(db16, uint8_t{32})), s);
  }
};

// q4_k and q5_k: 8 scales and 8 minima of 6 bits.
HWY_INLINE void scales_and_minima(const uint8_t* packed, f16 d, f16 dmin, float* s, float* m) {
  const auto w = words(packed);  // and what follows them in the block
  HWY_ALIGN constexpr uint32_t shifts[4] = {0, 0, 0, 4}, firsts[4] = {~0u, 0, ~0u, 0};
  const auto pairs = hn::InterleaveLower(du32x4, w, w);
  const auto low = masked(hn::Shr(hn::Broadcast<2>(w), hn::Load(du32x4, shifts)), 0x0F0F0F0F);
  const auto second = hn::Or(low, masked(hn::ShiftRight<2>(pairs), 0x30303030));
  const auto first = masked(pairs, 0x3F3F3F3F);
  const auto mask = hn::MaskFromVec(hn::Load(du32x4, firsts));
  HWY_ALIGN int8_t lanes[16];
  put16(hn::BitCast(db16, hn::IfThenElse(mask, first, second)), lanes);
  if constexpr (kLanes <= 8) {
    scaled(half(d), lanes, 8, s);
    scaled(hn::Neg(half(dmin)), lanes + 8, 8, m);
  } else {  // both in one vector
    const VF factors = hn::IfThenElse(hn::FirstN(df, 8), half(d), hn::Neg(half(dmin)));
    const VF both = hn::Mul(factors, code_floats(lanes));
    const hn::Half<DF> half_vector;
    hn::StoreU(hn::LowerHalf(half_vector, both), half_vector, s);
    hn::StoreU(hn::UpperHalf(half_vector, both), half_vector, m);
  }
}

template <>
struct Codes<BlockQ4K> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = true, is_signed = false;
  static constexpr int raise = 0;
  template <int p>
  static HWY_INLINE VB32 piece(const BlockQ4K& b, int64_t i) {
    return field<4 * (p % 2)>(db32, bytes32(b.qs + 32 * (p / 2) + i), 15);
  }
  static HWY_INLINE void scales(const BlockQ4K& b, float* s, float* m) { scales_and_minima(b.scales, b.d, b.dmin, s, m); }
};

template <>
struct Codes<BlockQ5K> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = true, is_signed = false;
  static constexpr int raise = 0;
  template <int p>
  static HWY_INLINE VB32 piece(const BlockQ5K& b, int64_t i) {
    const VB32 low = field<4 * (p % 2)>(db32, bytes32(b.qs + 32 * (p / 2) + i), 15);
    return hn::Or(low, field<p - 4>(db32, bytes32(b.qh + i), 16));
  }
  static HWY_INLINE void scales(const BlockQ5K& b, float* s, float* m) { scales_and_minima(b.scales, b.d, b.dmin, s, m); }
};

template <>
struct Codes<BlockQ6K> {
  static constexpr int64_t group = 16;
  static constexpr bool has_offset = false, is_signed = false;
  static constexpr int raise = 32;
  template <int p>
  static HWY_INLINE VB32 piece(const BlockQ6K& b, int64_t i) {
    const VB32 low = field<4 * (p % 4 / 2)>(db32, bytes32(b.ql + 64 * (p / 4) + 32 * (p % 2) + i), 15);
    const VB32 high = field<2 * (p % 4) - 4>(db32, bytes32(b.qh + 32 * (p / 4) + i), 0x30);
    return hn::Or(low, high);
  }
  static HWY_INLINE void scales(const BlockQ6K& b, float* s, float*) { scaled16(half(b.d), bytes16(b.scales), s); }
};

template <>
struct Codes<BlockIq4Xs> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false, is_signed = true;
  static constexpr int raise = 0;
  template <int p>
  static HWY_INLINE VB32 piece(const BlockIq4Xs& b, int64_t i) {
    return looked_up(kIq4Values, b.qs + 16 * p, i);
  }
  static HWY_INLINE void scales(const BlockIq4Xs& b, float* s, float*) {
    uint32_t low;
    std::memcpy(&low, b.scales_l, sizeof(low));
    // Code g: nibble g of `low` and pair g of the high bits.
    HWY_ALIGN constexpr uint32_t low_shifts[8] = {0, 4, 8, 12, 16, 20, 24, 28};
    HWY_ALIGN constexpr uint32_t high_shifts[8] = {0, 2, 4, 6, 8, 10, 12, 14};
    const hn::CappedTag<float, 8> d8;
    const hn::RebindToUnsigned<decltype(d8)> du8;
    const hn::RebindToSigned<decltype(d8)> di8;
    for (size_t g = 0; g < 8; g += hn::Lanes(d8)) {
      const auto l = hn::And(hn::Shr(hn::Set(du8, low), hn::Load(du8, low_shifts + g)), hn::Set(du8, 15u));
      const auto h = hn::And(hn::Shr(hn::Set(du8, uint32_t{b.scales_h}), hn::Load(du8, high_shifts + g)), hn::Set(du8, 3u));
      const auto code = hn::Sub(hn::BitCast(di8, hn::Or(l, hn::ShiftLeft<4>(h))), hn::Set(di8, 32));
      hn::StoreU(hn::Mul(hn::Set(d8, half_scalar(b.d)), hn::ConvertTo(d8, code)), d8, s + g);
    }
  }
};

// All codes of a block less their raise, or `less`, in order.
template <class Block, int less = Codes<Block>::raise, int p = 0>
HWY_INLINE void put_codes(const Block& block, int8_t* q) {
  for (int64_t i = 0; i < 32; i += kBytes32) {
    VB32 codes = Codes<Block>::template piece<p>(block, i);
    if constexpr (less != 0) codes = hn::Sub(codes, hn::Set(db32, static_cast<uint8_t>(less)));
    put32(codes, q + 32 * p + i);
  }
  if constexpr (32 * (p + 1) < Block::length) put_codes<Block, less, p + 1>(block, q);
}
