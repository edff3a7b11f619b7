// Element types. One row of traits per type, block-quantized types included: block length and bytes, the name in each
// format, and the type its dot products pair it with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "qkv/kernels/blocks.h"
#include "qkv/kernels/scalar_types.h"

namespace qkv {

enum class DType : uint8_t {
  f64, f32, bf16, f16, f8_e4m3, f8_e5m2,
  i64, i32, i16, i8, u64, u32, u16, u8, boolean,
  // GGUF block types
  q4_0, q4_1, q5_0, q5_1, q8_0, q8_1,
  q2_k, q3_k, q4_k, q5_k, q6_k, q8_k,
  iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq4_nl, iq4_xs,
  tq1_0, tq2_0, mxfp4,
  // bitsandbytes' 4-bit NormalFloat codes, two per byte; scales live in companion tensors
  nf4,
};
constexpr int kDTypeCount = static_cast<int>(DType::nf4) + 1;

struct DTypeTraits {
  DType type;
  std::string_view name;         // in configs and messages
  int block_length;              // elements per block; 1 for plain types
  int block_bytes;               // bytes per block
  std::string_view safetensors;  // "" if the format has no such type
  int gguf;                      // type id, -1 if the format has no such type
  DType dot_partner;             // what activations become for a dot product with this type
  bool floating;                 // plain floating point
};

const DTypeTraits& traits(DType type);
inline std::string_view name(DType type) { return traits(type).name; }
inline bool is_floating(DType type) { return traits(type).floating; }
inline bool is_block(DType type) { return traits(type).block_length > 1; }
// The kernels' name of a GGUF block type; nothing for plain types and nf4.
std::optional<BlockType> block_type(DType type);
// Bytes of `elements` elements; a block type's count must be a multiple of its block length (Error otherwise).
uint64_t dtype_bytes(DType type, uint64_t elements);

std::optional<DType> dtype_from_name(std::string_view name);
std::optional<DType> dtype_from_safetensors(std::string_view name);
std::optional<DType> dtype_from_gguf(int id);

template <typename T>
struct DTypeOf;
template <> struct DTypeOf<double> { static constexpr DType value = DType::f64; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::f32; };
template <> struct DTypeOf<bf16> { static constexpr DType value = DType::bf16; };
template <> struct DTypeOf<f16> { static constexpr DType value = DType::f16; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::i64; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::i32; };
template <> struct DTypeOf<int16_t> { static constexpr DType value = DType::i16; };
template <> struct DTypeOf<int8_t> { static constexpr DType value = DType::i8; };
template <> struct DTypeOf<uint32_t> { static constexpr DType value = DType::u32; };
template <> struct DTypeOf<uint16_t> { static constexpr DType value = DType::u16; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::u8; };

}  // namespace qkv
