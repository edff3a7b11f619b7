#include "qkv/tensor/dtype.h"

#include <array>

#include "qkv/core/error.h"

namespace qkv {
namespace {

using D = DType;

constexpr std::array<DTypeTraits, kDTypeCount> kTraits = {{
    {D::f64, "f64", 1, 8, "F64", 28, D::f64, true},
    {D::f32, "f32", 1, 4, "F32", 0, D::f32, true},
    {D::bf16, "bf16", 1, 2, "BF16", 30, D::bf16, true},
    {D::f16, "f16", 1, 2, "F16", 1, D::f16, true},
    {D::f8_e4m3, "f8_e4m3", 1, 1, "F8_E4M3", -1, D::f32, true},
    {D::f8_e5m2, "f8_e5m2", 1, 1, "F8_E5M2", -1, D::f32, true},
    {D::i64, "i64", 1, 8, "I64", 27, D::i64, false},
    {D::i32, "i32", 1, 4, "I32", 26, D::i32, false},
    {D::i16, "i16", 1, 2, "I16", 25, D::i16, false},
    {D::i8, "i8", 1, 1, "I8", 24, D::i8, false},
    {D::u64, "u64", 1, 8, "U64", -1, D::u64, false},
    {D::u32, "u32", 1, 4, "U32", -1, D::u32, false},
    {D::u16, "u16", 1, 2, "U16", -1, D::u16, false},
    {D::u8, "u8", 1, 1, "U8", -1, D::u8, false},
    {D::boolean, "bool", 1, 1, "BOOL", -1, D::boolean, false},
    {D::q4_0, "q4_0", 32, 18, "", 2, D::q8_0, false},
    {D::q4_1, "q4_1", 32, 20, "", 3, D::q8_1, false},
    {D::q5_0, "q5_0", 32, 22, "", 6, D::q8_0, false},
    {D::q5_1, "q5_1", 32, 24, "", 7, D::q8_1, false},
    {D::q8_0, "q8_0", 32, 34, "", 8, D::q8_0, false},
    {D::q8_1, "q8_1", 32, 36, "", 9, D::q8_1, false},
    {D::q2_k, "q2_k", 256, 84, "", 10, D::q8_k, false},
    {D::q3_k, "q3_k", 256, 110, "", 11, D::q8_k, false},
    {D::q4_k, "q4_k", 256, 144, "", 12, D::q8_k, false},
    {D::q5_k, "q5_k", 256, 176, "", 13, D::q8_k, false},
    {D::q6_k, "q6_k", 256, 210, "", 14, D::q8_k, false},
    {D::q8_k, "q8_k", 256, 292, "", 15, D::q8_k, false},
    {D::iq1_s, "iq1_s", 256, 50, "", 19, D::q8_k, false},
    {D::iq1_m, "iq1_m", 256, 56, "", 29, D::q8_k, false},
    {D::iq2_xxs, "iq2_xxs", 256, 66, "", 16, D::q8_k, false},
    {D::iq2_xs, "iq2_xs", 256, 74, "", 17, D::q8_k, false},
    {D::iq2_s, "iq2_s", 256, 82, "", 22, D::q8_k, false},
    {D::iq3_xxs, "iq3_xxs", 256, 98, "", 18, D::q8_k, false},
    {D::iq3_s, "iq3_s", 256, 110, "", 21, D::q8_k, false},
    {D::iq4_nl, "iq4_nl", 32, 18, "", 20, D::q8_0, false},
    {D::iq4_xs, "iq4_xs", 256, 136, "", 23, D::q8_k, false},
    {D::tq1_0, "tq1_0", 256, 54, "", 34, D::q8_k, false},
    {D::tq2_0, "tq2_0", 256, 66, "", 35, D::q8_k, false},
    {D::mxfp4, "mxfp4", 32, 17, "", 39, D::q8_0, false},
    {D::nf4, "nf4", 2, 1, "", -1, D::f32, false},
}};

constexpr bool rows_in_order() {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (static_cast<int>(kTraits[static_cast<size_t>(i)].type) != i) return false;
  }
  return true;
}
static_assert(rows_in_order(), "kTraits must list every DType in the enumeration's order");

constexpr int kFirstBlock = static_cast<int>(DType::q4_0);

constexpr bool blocks_agree() {
  for (int i = 0; i < kBlockTypeCount; ++i) {
    const DTypeTraits& row = kTraits[static_cast<size_t>(kFirstBlock + i)];
    const auto type = static_cast<BlockType>(i);
    if (row.block_length != block_length(type) || row.block_bytes != block_bytes(type)) return false;
  }
  return static_cast<int>(DType::mxfp4) == kFirstBlock + static_cast<int>(BlockType::mxfp4);
}

template <typename Field, typename Value>
std::optional<DType> find_by(Field field, const Value& value) {
  for (const auto& row : kTraits) {
    if (row.*field == value) return row.type;
  }
  return std::nullopt;
}

}  // namespace

static_assert(blocks_agree(), "DType's block types must be BlockType, in its order and with its sizes");

const DTypeTraits& traits(DType type) { return kTraits[static_cast<size_t>(type)]; }

std::optional<BlockType> block_type(DType type) {
  const int index = static_cast<int>(type) - kFirstBlock;
  if (index < 0 || index >= kBlockTypeCount) return std::nullopt;
  return static_cast<BlockType>(index);
}

uint64_t dtype_bytes(DType type, uint64_t elements) {
  const DTypeTraits& row = traits(type);
  require(elements % static_cast<uint64_t>(row.block_length) == 0, "{}: expected a multiple of {} elements, found {}", row.name,
          row.block_length, elements);
  uint64_t bytes = 0;
  require(!__builtin_mul_overflow(elements / static_cast<uint64_t>(row.block_length), static_cast<uint64_t>(row.block_bytes), &bytes),
          "{}: {} elements have more bytes than can be counted", row.name, elements);
  return bytes;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  if (name == "float32" || name == "float") name = "f32";
  if (name == "bfloat16") name = "bf16";
  if (name == "float16" || name == "half") name = "f16";
  if (name == "float64" || name == "double") name = "f64";
  return find_by(&DTypeTraits::name, name);
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  if (name.empty()) return std::nullopt;
  return find_by(&DTypeTraits::safetensors, name);
}

std::optional<DType> dtype_from_gguf(int id) {
  if (id < 0) return std::nullopt;
  return find_by(&DTypeTraits::gguf, id);
}

}  // namespace qkv
