#include "qkv/compress/file_types.h"

#include <algorithm>
#include <array>

#include "qkv/core/error.h"
#include "qkv/models/gguf_conversion.h"

namespace qkv {

const std::vector<FileTypeTraits>& file_types() {
  static const std::vector<FileTypeTraits> list = {
      {FileType::f32, "F32", 0, DType::f32, "32 bits, exact"},
      {FileType::f16, "F16", 1, DType::f16, "16 bits"},
      {FileType::bf16, "BF16", 32, DType::bf16, "16 bits, the range of 32"},
      {FileType::q8_0, "Q8_0", 7, DType::q8_0, "8.5 bits"},
      {FileType::q6_k, "Q6_K", 18, DType::q6_k, "6.6 bits"},
      {FileType::q5_k_m, "Q5_K_M", 17, DType::q5_k, "5.7 bits"},
      {FileType::q5_k_s, "Q5_K_S", 16, DType::q5_k, "5.5 bits"},
      {FileType::q4_k_m, "Q4_K_M", 15, DType::q4_k, "4.9 bits, a good choice for most uses"},
      {FileType::q4_k_s, "Q4_K_S", 14, DType::q4_k, "4.6 bits"},
      {FileType::q3_k_l, "Q3_K_L", 13, DType::q3_k, "4.3 bits"},
      {FileType::q3_k_m, "Q3_K_M", 12, DType::q3_k, "3.9 bits"},
      {FileType::q3_k_s, "Q3_K_S", 11, DType::q3_k, "3.5 bits"},
      {FileType::q2_k, "Q2_K", 10, DType::q2_k, "3.0 bits"},
      {FileType::q2_k_s, "Q2_K_S", 21, DType::q2_k, "2.8 bits"},
      {FileType::iq4_nl, "IQ4_NL", 25, DType::iq4_nl, "4.5 bits, unevenly spaced levels"},
      {FileType::iq4_xs, "IQ4_XS", 30, DType::iq4_xs, "4.3 bits, unevenly spaced levels"},
      {FileType::iq3_m, "IQ3_M", 27, DType::iq3_s, "3.7 bits"},
      {FileType::iq3_s, "IQ3_S", 26, DType::iq3_s, "3.4 bits"},
      {FileType::iq3_xs, "IQ3_XS", 22, DType::iq3_s, "3.3 bits"},
      {FileType::iq3_xxs, "IQ3_XXS", 23, DType::iq3_xxs, "3.1 bits, needs importances"},
      {FileType::iq2_m, "IQ2_M", 29, DType::iq2_s, "2.7 bits, needs importances"},
      {FileType::iq2_s, "IQ2_S", 28, DType::iq2_xs, "2.5 bits, needs importances"},
      {FileType::iq2_xs, "IQ2_XS", 20, DType::iq2_xs, "2.3 bits, needs importances"},
      {FileType::iq2_xxs, "IQ2_XXS", 19, DType::iq2_xxs, "2.1 bits, needs importances"},
      {FileType::iq1_m, "IQ1_M", 31, DType::iq1_m, "1.8 bits, needs importances"},
      {FileType::iq1_s, "IQ1_S", 24, DType::iq1_s, "1.6 bits, needs importances"},
      {FileType::q5_1, "Q5_1", 9, DType::q5_1, "6 bits, blocks of 32"},
      {FileType::q5_0, "Q5_0", 8, DType::q5_0, "5.5 bits, blocks of 32"},
      {FileType::q4_1, "Q4_1", 3, DType::q4_1, "5 bits, blocks of 32"},
      {FileType::q4_0, "Q4_0", 2, DType::q4_0, "4.5 bits, blocks of 32"},
      {FileType::tq2_0, "TQ2_0", 37, DType::tq2_0, "2.1 bits, for weights trained to be -1, 0, 1"},
      {FileType::tq1_0, "TQ1_0", 36, DType::tq1_0, "1.7 bits, for weights trained to be -1, 0, 1"},
      {FileType::mxfp4_moe, "MXFP4_MOE", 38, DType::mxfp4, "experts in MXFP4, the rest in Q8_0"},
  };
  return list;
}

const FileTypeTraits& traits(FileType type) {
  return *std::find_if(file_types().begin(), file_types().end(),
                       [&](const FileTypeTraits& entry) { return entry.type == type; });
}

const FileTypeTraits& file_type_from_name(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  std::vector<std::string> names;
  for (const auto& entry : file_types()) {
    if (entry.name == upper) return entry;
    names.emplace_back(entry.name);
  }
  fail("type: expected a file type such as Q4_K_M, found '{}'{}", name, suggestion(upper, names));
}

ModelShape ModelShape::of(const Metadata& metadata, const std::vector<TensorEntry>& tensors) {
  ModelShape model;
  model.architecture = metadata.string_or("general.architecture", "");
  // Some keys are lists with a value for every layer.
  const auto number = [&](const char* key, int64_t fallback) {
    const std::string full = model.architecture + "." + key;
    const MetadataValue* value = metadata.find(full);
    if (value == nullptr) return fallback;
    if (element_count(*value) == 1 && !std::holds_alternative<std::vector<int32_t>>(*value) &&
        !std::holds_alternative<std::vector<uint32_t>>(*value)) {
      return metadata.integer(full);
    }
    const std::vector<int64_t> values = metadata.integers(full);
    return values.empty() ? fallback : values.front();
  };
  model.layers = number("block_count", 0);
  const int64_t heads = number("attention.head_count", 1),
                kv_heads = number("attention.head_count_kv", heads);
  model.heads_per_kv_head = kv_heads > 0 ? heads / kv_heads : 0;
  model.experts = number("expert_count", 0);
  model.tied = std::none_of(tensors.begin(), tensors.end(),
                            [](const TensorEntry& entry) { return entry.name == "output.weight"; });
  return model;
}

bool is_quantizable(const std::string& name, const Shape& shape) {
  constexpr std::array<std::string_view, 16> kParts = {
      "_norm.weight", "ffn_gate_inp",  "altup",      "laurel",    "per_layer_model_proj", "position_embd",
      "token_types",  "ssm_conv1d",    "shortconv.", "time_mix_", "attn_rel_b",           ".rel_pos",
      ".patch_embd",  ".patch_merger", "sam.",       "pos_embd"};
  if (shape.rank() < 2 || !name.ends_with("weight") || gguf_wants_f32(name, shape)) return false;
  return std::none_of(kParts.begin(), kParts.end(), [&](std::string_view part) {
    // Only RWKV's small matrices; its large ones are quantized.
    if (part == "time_mix_" && name.find(part) != std::string::npos) {
      constexpr std::array<std::string_view, 4> kLarge = {"time_mix_key.", "time_mix_value.",
                                                          "time_mix_receptance.", "time_mix_output."};
      return std::none_of(kLarge.begin(), kLarge.end(),
                          [&](std::string_view large) { return name.find(large) != std::string::npos; }) &&
             name.find("time_mix_gate.") == std::string::npos;
    }
    return name.find(part) != std::string::npos;
  });
}

DType fitting_type(DType type, int64_t cols) {
  const auto fits = [&](DType candidate) { return cols % traits(candidate).block_length == 0; };
  if (fits(type)) return type;
  DType smaller = DType::f16;
  switch (type) {
    case DType::iq1_s:
    case DType::iq1_m:
    case DType::iq2_xxs:
    case DType::iq2_xs:
    case DType::iq2_s:
    case DType::iq3_xxs:
    case DType::iq3_s:
    case DType::iq4_xs:
      smaller = DType::iq4_nl;
      break;
    case DType::q2_k:
    case DType::q3_k:
    case DType::tq1_0:
    case DType::tq2_0:
      smaller = DType::q4_0;
      break;
    case DType::q4_k:
      smaller = DType::q5_0;
      break;
    case DType::q5_k:
      smaller = DType::q5_1;
      break;
    case DType::q6_k:
      smaller = DType::q8_0;
      break;
    default:
      break;
  }
  return fits(smaller) ? smaller : DType::f16;
}

}  // namespace qkv
