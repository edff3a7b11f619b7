// Unpacking of block types into signed byte codes and the scales and offsets of their groups, so that
// value = scale * code + offset, in two roundings; layouts in blocks.h. One struct per type:
//
//   group               values that share a scale
//   has_offset          whether there is an offset
//   codes(block, q)     writes the block's codes, 64-byte aligned
//   scales(block, s, m) writes the groups' scales and offsets, room for 16 each

using DB16 = hn::CappedTag<uint8_t, 16>;
using DB32 = hn::CappedTag<uint8_t, 32>;  // 16 lanes where vectors have no more
constexpr DB16 db16;
constexpr DB32 db32;
constexpr int64_t kBytes32 = static_cast<int64_t>(hn::MaxLanes(DB32()));
using VB16 = hn::Vec<DB16>;
using VB32 = hn::Vec<DB32>;

// (v >> bits) & mask in every byte.
template <int bits, class D, class V = hn::Vec<D>>
HWY_INLINE V field(D d, V v, uint8_t mask) {
  if constexpr (bits != 0) v = hn::BitCast(d, hn::ShiftRight<bits>(hn::BitCast(hn::RepartitionToWide<D>(), v)));
  return hn::And(v, hn::Set(d, mask));
}
// (v << bits) & mask in every byte.
template <int bits, class D, class V = hn::Vec<D>>
HWY_INLINE V raised_field(D d, V v, uint8_t mask) {
  return hn::And(hn::BitCast(d, hn::ShiftLeft<bits>(hn::BitCast(hn::RepartitionToWide<D>(), v))), hn::Set(d, mask));
}
// One of the two above: moves the pair of bits at `from` to bits 4 and 5.
template <int from, class D, class V = hn::Vec<D>>
HWY_INLINE V pair_to_bit_4(D d, V v) {
  if constexpr (from < 4) {
    return raised_field<4 - from>(d, v, 0x30);
  } else {
    return field<from - 4>(d, v, 0x30);
  }
}

HWY_INLINE VB16 bytes16(const void* p) { return hn::LoadU(db16, static_cast<const uint8_t*>(p)); }
HWY_INLINE VB32 bytes32(const void* p) { return hn::LoadU(db32, static_cast<const uint8_t*>(p)); }
HWY_INLINE void put(VB16 v, int8_t* q) { hn::StoreU(v, db16, reinterpret_cast<uint8_t*>(q)); }
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

// s[i] = factor * v[i] for 16 signed bytes.
HWY_INLINE void scaled16(VF factor, VB16 v, float* s) {
  HWY_ALIGN int8_t lanes[16];
  put(v, lanes);
  for (int64_t i = 0; i < 16; i += kLanes) hn::StoreU(hn::Mul(factor, code_floats(lanes + i)), df, s + i);
}

template <class Block>
struct Codes;

// ---- 32 values in nibbles ----

HWY_INLINE void nibbles16(const uint8_t* qs, VB16& low, VB16& high) {
  const VB16 v = bytes16(qs);
  low = field<0>(db16, v, 15);
  high = field<4>(db16, v, 15);
}

// Bit i of qh, as 16 in byte i, for 16 values.
HWY_INLINE VB16 fifth_bits(const uint8_t* qh) {
  return hn::IfThenElseZero(hn::LoadMaskBits(db16, qh), hn::Set(db16, uint8_t{16}));
}

template <>
struct Codes<BlockQ4_0> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockQ4_0& b, int8_t* q) {
    VB16 low, high;
    nibbles16(b.qs, low, high);
    const VB16 middle = hn::Set(db16, uint8_t{8});
    put(hn::Sub(low, middle), q);
    put(hn::Sub(high, middle), q + 16);
  }
  static HWY_INLINE void scales(const BlockQ4_0& b, float* s, float*) { s[0] = half_scalar(b.d); }
};

template <>
struct Codes<BlockQ4_1> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = true;
  static HWY_INLINE void codes(const BlockQ4_1& b, int8_t* q) {
    VB16 low, high;
    nibbles16(b.qs, low, high);
    put(low, q);
    put(high, q + 16);
  }
  static HWY_INLINE void scales(const BlockQ4_1& b, float* s, float* m) {
    s[0] = half_scalar(b.d);
    m[0] = half_scalar(b.m);
  }
};

template <>
struct Codes<BlockQ5_0> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockQ5_0& b, int8_t* q) {
    VB16 low, high;
    nibbles16(b.qs, low, high);
    const VB16 middle = hn::Set(db16, uint8_t{16});
    put(hn::Sub(hn::Or(low, fifth_bits(b.qh)), middle), q);
    put(hn::Sub(hn::Or(high, fifth_bits(b.qh + 2)), middle), q + 16);
  }
  static HWY_INLINE void scales(const BlockQ5_0& b, float* s, float*) { s[0] = half_scalar(b.d); }
};

template <>
struct Codes<BlockQ5_1> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = true;
  static HWY_INLINE void codes(const BlockQ5_1& b, int8_t* q) {
    VB16 low, high;
    nibbles16(b.qs, low, high);
    put(hn::Or(low, fifth_bits(b.qh)), q);
    put(hn::Or(high, fifth_bits(b.qh + 2)), q + 16);
  }
  static HWY_INLINE void scales(const BlockQ5_1& b, float* s, float* m) {
    s[0] = half_scalar(b.d);
    m[0] = half_scalar(b.m);
  }
};

template <>
struct Codes<BlockQ8_0> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockQ8_0& b, int8_t* q) {
    for (int64_t i = 0; i < 32; i += kBytes32) put32(bytes32(b.qs + i), q + i);
  }
  static HWY_INLINE void scales(const BlockQ8_0& b, float* s, float*) { s[0] = half_scalar(b.d); }
};

HWY_INLINE void looked_up(const std::array<int8_t, 16>& values, const uint8_t* qs, int8_t* q) {
  VB16 low, high;
  nibbles16(qs, low, high);
  const VB16 table = bytes16(&values);
  put(hn::TableLookupBytes(table, low), q);
  put(hn::TableLookupBytes(table, high), q + 16);
}

template <>
struct Codes<BlockIq4Nl> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockIq4Nl& b, int8_t* q) { looked_up(kIq4Values, b.qs, q); }
  static HWY_INLINE void scales(const BlockIq4Nl& b, float* s, float*) { s[0] = half_scalar(b.d); }
};

template <>
struct Codes<BlockMxfp4> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockMxfp4& b, int8_t* q) { looked_up(kMxfp4Values, b.qs, q); }
  static HWY_INLINE void scales(const BlockMxfp4& b, float* s, float*) {
    const uint32_t bits = b.e < 2 ? uint32_t{0x00200000} << b.e : static_cast<uint32_t>(b.e - 1) << 23;
    std::memcpy(s, &bits, sizeof(bits));
  }
};

// ---- 256 values ----

template <>
struct Codes<BlockQ2K> {
  static constexpr int64_t group = 16;
  static constexpr bool has_offset = true;
  static HWY_INLINE void codes(const BlockQ2K& b, int8_t* q) {
    for (int64_t part = 0; part < 2; ++part) {
      for (int64_t i = 0; i < 32; i += kBytes32) {
        const VB32 v = bytes32(b.qs + 32 * part + i);
        int8_t* out = q + 128 * part + i;
        put32(field<0>(db32, v, 3), out);
        put32(field<2>(db32, v, 3), out + 32);
        put32(field<4>(db32, v, 3), out + 64);
        put32(field<6>(db32, v, 3), out + 96);
      }
    }
  }
  static HWY_INLINE void scales(const BlockQ2K& b, float* s, float* m) {
    const VB16 v = bytes16(b.scales);
    scaled16(half(b.d), field<0>(db16, v, 15), s);
    scaled16(hn::Neg(half(b.dmin)), field<4>(db16, v, 15), m);
  }
};

// (bit `bit` of v) << 2, minus 4.
template <int bit>
HWY_INLINE VB32 third_bit_or_minus_4(VB32 v) {
  VB32 four;
  if constexpr (bit < 2) {
    four = raised_field<2 - bit>(db32, v, 4);
  } else {
    four = field<bit - 2>(db32, v, 4);
  }
  return hn::Sub(four, hn::Set(db32, uint8_t{4}));
}

template <>
struct Codes<BlockQ3K> {
  static constexpr int64_t group = 16;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockQ3K& b, int8_t* q) {
    for (int64_t i = 0; i < 32; i += kBytes32) {
      const VB32 high = bytes32(b.hmask + i), first = bytes32(b.qs + i), second = bytes32(b.qs + 32 + i);
      int8_t* out = q + i;
      put32(hn::Add(field<0>(db32, first, 3), third_bit_or_minus_4<0>(high)), out);
      put32(hn::Add(field<2>(db32, first, 3), third_bit_or_minus_4<1>(high)), out + 32);
      put32(hn::Add(field<4>(db32, first, 3), third_bit_or_minus_4<2>(high)), out + 64);
      put32(hn::Add(field<6>(db32, first, 3), third_bit_or_minus_4<3>(high)), out + 96);
      put32(hn::Add(field<0>(db32, second, 3), third_bit_or_minus_4<4>(high)), out + 128);
      put32(hn::Add(field<2>(db32, second, 3), third_bit_or_minus_4<5>(high)), out + 160);
      put32(hn::Add(field<4>(db32, second, 3), third_bit_or_minus_4<6>(high)), out + 192);
      put32(hn::Add(field<6>(db32, second, 3), third_bit_or_minus_4<7>(high)), out + 224);
    }
  }
  static HWY_INLINE void scales(const BlockQ3K& b, float* s, float*) {
    uint32_t w[3];
    std::memcpy(w, b.scales, sizeof(w));
    const uint32_t nibble = 0x0F0F0F0F, pair = 0x03030303;
    uint32_t unpacked[4] = {(w[0] & nibble) | ((w[2] & pair) << 4), (w[1] & nibble) | (((w[2] >> 2) & pair) << 4),
                            ((w[0] >> 4) & nibble) | (((w[2] >> 4) & pair) << 4),
                            ((w[1] >> 4) & nibble) | (((w[2] >> 6) & pair) << 4)};
    scaled16(half(b.d), hn::Sub(bytes16(unpacked), hn::Set(db16, uint8_t{32})), s);
  }
};

// q4_k and q5_k: 8 scales and 8 minima of 6 bits.
HWY_INLINE void scales_and_minima(const uint8_t* packed, f16 d, f16 dmin, float* s, float* m) {
  uint32_t w[3];
  std::memcpy(w, packed, sizeof(w));
  const uint32_t six = 0x3F3F3F3F, nibble = 0x0F0F0F0F, pair = 0x03030303;
  uint32_t unpacked[4] = {w[0] & six, (w[2] & nibble) | (((w[0] >> 6) & pair) << 4), w[1] & six,
                          ((w[2] >> 4) & nibble) | (((w[1] >> 6) & pair) << 4)};
  HWY_ALIGN float both[16];
  scaled16(hn::Set(df, 1.0f), bytes16(unpacked), both);
  const float scale = half_scalar(d), minimum = -half_scalar(dmin);
  for (int g = 0; g < 8; ++g) {
    s[g] = scale * both[g];
    m[g] = minimum * both[8 + g];
  }
}

template <>
struct Codes<BlockQ4K> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = true;
  static HWY_INLINE void codes(const BlockQ4K& b, int8_t* q) {
    for (int64_t i = 0; i < 128; i += kBytes32) {
      const VB32 v = bytes32(b.qs + i);
      int8_t* out = q + i / 32 * 64 + i % 32;
      put32(field<0>(db32, v, 15), out);
      put32(field<4>(db32, v, 15), out + 32);
    }
  }
  static HWY_INLINE void scales(const BlockQ4K& b, float* s, float* m) { scales_and_minima(b.scales, b.d, b.dmin, s, m); }
};

// Bit `bit` of v as 16.
template <int bit>
HWY_INLINE VB32 fifth_bit(VB32 v) {
  if constexpr (bit < 4) {
    return raised_field<4 - bit>(db32, v, 16);
  } else {
    return field<bit - 4>(db32, v, 16);
  }
}

template <>
struct Codes<BlockQ5K> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = true;
  template <int part>
  static HWY_INLINE void quarter(const BlockQ5K& b, VB32 high, int64_t i, int8_t* q) {
    const VB32 v = bytes32(b.qs + 32 * part + i);
    put32(hn::Or(field<0>(db32, v, 15), fifth_bit<2 * part>(high)), q + 64 * part + i);
    put32(hn::Or(field<4>(db32, v, 15), fifth_bit<2 * part + 1>(high)), q + 64 * part + 32 + i);
  }
  static HWY_INLINE void codes(const BlockQ5K& b, int8_t* q) {
    for (int64_t i = 0; i < 32; i += kBytes32) {
      const VB32 high = bytes32(b.qh + i);
      quarter<0>(b, high, i, q);
      quarter<1>(b, high, i, q);
      quarter<2>(b, high, i, q);
      quarter<3>(b, high, i, q);
    }
  }
  static HWY_INLINE void scales(const BlockQ5K& b, float* s, float* m) { scales_and_minima(b.scales, b.d, b.dmin, s, m); }
};

template <>
struct Codes<BlockQ6K> {
  static constexpr int64_t group = 16;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockQ6K& b, int8_t* q) {
    const VB32 middle = hn::Set(db32, uint8_t{32});
    for (int64_t part = 0; part < 2; ++part) {
      for (int64_t i = 0; i < 32; i += kBytes32) {
        const VB32 high = bytes32(b.qh + 32 * part + i);
        const VB32 first = bytes32(b.ql + 64 * part + i), second = bytes32(b.ql + 64 * part + 32 + i);
        int8_t* out = q + 128 * part + i;
        put32(hn::Sub(hn::Or(field<0>(db32, first, 15), pair_to_bit_4<0>(db32, high)), middle), out);
        put32(hn::Sub(hn::Or(field<0>(db32, second, 15), pair_to_bit_4<2>(db32, high)), middle), out + 32);
        put32(hn::Sub(hn::Or(field<4>(db32, first, 15), pair_to_bit_4<4>(db32, high)), middle), out + 64);
        put32(hn::Sub(hn::Or(field<4>(db32, second, 15), pair_to_bit_4<6>(db32, high)), middle), out + 96);
      }
    }
  }
  static HWY_INLINE void scales(const BlockQ6K& b, float* s, float*) { scaled16(half(b.d), bytes16(b.scales), s); }
};

template <>
struct Codes<BlockIq4Xs> {
  static constexpr int64_t group = 32;
  static constexpr bool has_offset = false;
  static HWY_INLINE void codes(const BlockIq4Xs& b, int8_t* q) {
    for (int64_t g = 0; g < 8; ++g) looked_up(kIq4Values, b.qs + 16 * g, q + 32 * g);
  }
  static HWY_INLINE void scales(const BlockIq4Xs& b, float* s, float*) {
    const float d = half_scalar(b.d);
    for (int g = 0; g < 8; ++g) {
      const int code = ((b.scales_l[g / 2] >> (4 * (g % 2))) & 15) | (((b.scales_h >> (2 * g)) & 3) << 4);
      s[g] = d * static_cast<float>(code - 32);
    }
  }
};
