#include "qkv/formats/quantized/scheme.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/content.h"
#include "qkv/tensor/convert.h"

namespace qkv {

const TensorEntry& QuantizedModule::part(std::string_view part) const {
  const TensorEntry* entry = find(part);
  if (entry == nullptr) refuse(fmt::format("expected a tensor '{}' beside its others, found none", part));
  return *entry;
}

const TensorEntry& QuantizedModule::part(std::string_view name, const Shape& shape) const {
  const TensorEntry& entry = part(name);
  require_shape(entry, shape);
  return entry;
}

const TensorEntry& QuantizedModule::matrix(std::string_view name) const {
  const TensorEntry& entry = part(name);
  constexpr int64_t kLargest = int64_t{1} << 31;
  const auto fits = [](int64_t dim) { return dim >= 1 && dim <= kLargest; };
  if (entry.shape.rank() == 2 && fits(entry.shape[0]) && fits(entry.shape[1])) return entry;
  fail("[{}] {}: tensor '{}': expected a matrix, found the shape {}", method_, stored_.path(),
       shown(entry.name), entry.shape.str());
}

void QuantizedModule::require_shape(const TensorEntry& entry, const Shape& shape) const {
  if (entry.shape == shape) return;
  fail("[{}] {}: tensor '{}': expected the shape {}, found {}", method_, stored_.path(), shown(entry.name),
       shape.str(), entry.shape.str());
}

void QuantizedModule::require_type(const TensorEntry& entry, std::initializer_list<DType> types) const {
  if (std::find(types.begin(), types.end(), entry.type) != types.end()) return;
  std::vector<std::string_view> names;
  for (const DType type : types) names.push_back(qkv::name(type));
  fail("[{}] {}: tensor '{}': expected {}, found {}", method_, stored_.path(), shown(entry.name),
       fmt::join(names, " or "), qkv::name(entry.type));
}

void QuantizedModule::require_floating(const TensorEntry& entry) const {
  if (is_floating(entry.type)) return;
  fail("[{}] {}: tensor '{}': expected floating-point numbers, found {}", method_, stored_.path(),
       shown(entry.name), qkv::name(entry.type));
}

Tensor QuantizedModule::floats(std::string_view part) const {
  return read(part).to(DType::f32);
}

std::vector<int64_t> QuantizedModule::integers(std::string_view part) const {
  const Tensor tensor = read(part);
  const auto copy = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto values = tensor.span<T>();
    return std::vector<int64_t>(values.begin(), values.end());
  };
  if (tensor.dtype() == DType::i64) return copy(static_cast<int64_t*>(nullptr));
  if (tensor.dtype() == DType::i32) return copy(static_cast<int32_t*>(nullptr));
  if (tensor.dtype() == DType::i8) return copy(static_cast<int8_t*>(nullptr));
  require_type(this->part(part), {DType::i64, DType::i32, DType::i8});
  return {};
}

void QuantizedModule::refuse(std::string_view sentence) const {
  fail("[{}] {}: module '{}': {}", method_, stored_.path(), shown(prefix_), sentence);
}

std::vector<std::string> modules_with(const Checkpoint& stored, std::string_view part) {
  std::vector<std::string> prefixes;
  for (const auto& entry : stored.entries()) {
    if (is_part(entry.name, {part}))
      prefixes.push_back(entry.name.substr(0, entry.name.size() - part.size() - 1));
  }
  return prefixes;
}

bool is_part(std::string_view name, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](std::string_view part) {
    return name.size() > part.size() && name.ends_with(part) && name[name.size() - part.size() - 1] == '.';
  });
}

ScaleGrid scale_grid(const QuantizedModule& module, const TensorEntry& scales, const Shape& weight,
                     std::optional<std::pair<int64_t, int64_t>> block) {
  const int64_t rows = weight[0];
  const int64_t cols = weight[1];
  if (scales.shape.elements() == 1) return {1, rows, cols};
  const int64_t scale_rows = scales.shape[0];
  const int64_t scale_cols = scales.shape.rank() == 1 ? 1 : scales.shape[1];
  if (scales.shape.rank() <= 2) {
    if (block) {
      const auto [height, width] = *block;
      if (scale_rows == (rows + height - 1) / height && scale_cols == (cols + width - 1) / width)
        return {scale_cols, height, width};
    } else if (scale_rows == rows && scale_cols > 0 && cols % scale_cols == 0) {
      return {scale_cols, 1, cols / scale_cols};
    }
  }
  module.refuse(fmt::format("expected scales of a weight {}{}, found the shape {}", weight.str(),
                            block ? fmt::format(" in blocks of {} x {}", block->first, block->second) : "",
                            scales.shape.str()));
}

DequantizedTensor scaled_weight(QuantizedModule module, std::string_view scale_part,
                                std::optional<std::string> zero_part,
                                std::optional<std::pair<int64_t, int64_t>> block) {
  const TensorEntry& weight = module.matrix("weight");
  module.require_type(weight, {DType::f8_e4m3, DType::f8_e5m2, DType::i8, DType::u8});
  const TensorEntry& scales = module.part(scale_part);
  module.require_floating(scales);
  const ScaleGrid grid = scale_grid(module, scales, weight.shape, block);
  DequantizedTensor result{module.name("weight"), weight.shape, {module.name("weight"), scales.name}, {}};
  if (zero_part) {
    const TensorEntry& zeros = module.part(*zero_part);
    if (zeros.shape.elements() != scales.shape.elements()) module.require_shape(zeros, scales.shape);
    result.parts.push_back(zeros.name);
  }
  result.dequantize = [module, scale_part = std::string(scale_part), zero_part, grid,
                       shape = weight.shape](float* out) {
    const Tensor codes = module.read("weight");
    const Tensor scales = module.floats(scale_part);
    const std::vector<int64_t> zeros = zero_part ? module.integers(*zero_part) : std::vector<int64_t>();
    const float* scale = scales.data<float>();
    parallel_for(shape[0], 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        float* values = out + row * shape[1];
        widen(codes.raw(), codes.dtype(), row * shape[1], shape[1], values);
        for (int64_t column = 0; column < shape[1]; ++column) {
          const int64_t place = grid.at(row, column);
          const float zero = zeros.empty() ? 0.0f : static_cast<float>(zeros[static_cast<size_t>(place)]);
          values[column] = (values[column] - zero) * scale[place];
        }
      }
    });
  };
  return result;
}

}  // namespace qkv
