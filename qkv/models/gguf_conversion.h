// Conversions between Hugging Face's layout of a model and GGUF's, as plans.
#pragma once

#include <optional>
#include <string_view>

#include "qkv/models/conversion_plan.h"

namespace qkv {

// Source with Hugging Face's names.
ConversionPlan plan_to_gguf(const Checkpoint& source, std::optional<DType> type);
// Source with GGUF's names.
ConversionPlan plan_to_hugging_face(const Checkpoint& source, std::optional<DType> type);

// Whether llama.cpp expects the tensor as f32, whatever the type of the model: its element-wise operations on
// vectors, routers and convolutions take nothing else.
bool gguf_wants_f32(std::string_view name, const Shape& shape);
// The value of general.file_type for a model whose matrices have this type.
uint32_t gguf_file_type(DType type);

}  // namespace qkv
