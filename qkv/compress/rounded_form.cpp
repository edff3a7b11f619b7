#include "qkv/compress/rounded_form.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/quant/four_bit.h"
#include "qkv/quant/quantize.h"
#include "qkv/quant/scaled_fp8.h"
#include "qkv/quant/uniform.h"
#include "qkv/tensor/convert.h"

namespace qkv {
namespace {

constexpr int64_t kPiece = int64_t{1} << 16;  // elements rounded together

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

std::vector<std::string> known_names() {
  std::vector<std::string> names;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    // q8_1 and q8_k exist only inside products.
    if (block_type(type) && type != DType::q8_1 && type != DType::q8_k) names.emplace_back(name(type));
  }
  for (const char* other : {"bf16", "f16", "f8_e4m3", "f8_e5m2", "nf4", "int8", "int4"})
    names.emplace_back(other);
  return names;
}

void round_plain(const float* x, int64_t n, DType type, float* out) {
  std::vector<std::byte> stored(dtype_bytes(type, static_cast<uint64_t>(n)));
  narrow(x, type, 0, n, stored.data());
  widen(stored.data(), type, 0, n, out);
}

void round_fp8(const float* x, int64_t columns, DType type, float* out) {
  std::array<std::byte, 256> codes;
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i);
  std::array<float, 256> values;
  widen(codes.data(), type, 0, 256, values.data());
  float largest = 0;
  for (int64_t c = 0; c < columns; ++c) largest = std::max(largest, std::abs(x[c]));
  const float scale = largest / (type == DType::f8_e4m3 ? 448.0f : 57344.0f);
  for (int64_t c = 0; c < columns; ++c)
    out[c] = scale > 0 ? values[to_fp8(x[c] / scale, type)] * scale : 0.0f;
}

void round_nf4(const float* x, int64_t n, float* out) {
  const auto& map = nf4_values();
  const BlockCodes coded = quantize_blockwise({x, static_cast<size_t>(n)}, kFourBitBlock, map);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = map[coded.codes[static_cast<size_t>(i)]] * coded.scales[static_cast<size_t>(i / kFourBitBlock)];
  }
}

void round_integers(const float* x, int64_t columns, const UniformScheme& scheme, float* out) {
  const int64_t step = scheme.columns_per_group(columns);
  for (int64_t begin = 0; begin < columns; begin += step) {
    const int64_t count = std::min(step, columns - begin);
    const ScaleAndZero scale = find_scale({x + begin, static_cast<size_t>(count)}, scheme);
    for (int64_t c = begin; c < begin + count; ++c)
      out[c] = scale.value(scale.code(x[c], scheme.largest_code()));
  }
}

double ratio(double part, double whole) {
  return whole > 0  ? std::sqrt(std::max(part, 0.0) / whole)
         : part > 0 ? std::numeric_limits<double>::infinity()
                    : 0;
}

}  // namespace

RoundedForm::RoundedForm(std::string_view asked) : name_(lower(asked)) {
  if (name_ == "fp8") name_ = "f8_e4m3";
  const std::vector<std::string> names = known_names();
  require(std::find(names.begin(), names.end(), name_) != names.end(),
          "type: expected one of {}; found '{}'{}", fmt::join(names, ", "), asked, suggestion(name_, names));
  if (name_ == "int8" || name_ == "int4") {
    kind_ = Kind::integer;
    bits_ = name_ == "int8" ? 8 : 4;
    group_ = name_ == "int8" ? 0 : 128;
    return;
  }
  type_ = *dtype_from_name(name_);
  kind_ = type_ == DType::nf4                                  ? Kind::nf4
          : type_ == DType::f8_e4m3 || type_ == DType::f8_e5m2 ? Kind::fp8
          : is_floating(type_)                                 ? Kind::plain
                                                               : Kind::block;
}

double RoundedForm::bits_per_weight(int64_t columns) const {
  const auto per_row = 32.0 / static_cast<double>(std::max<int64_t>(columns, 1));
  switch (kind_) {
    case Kind::fp8:
      return 8 + per_row;
    case Kind::nf4:
      return 4 + 32.0 / kFourBitBlock;
    case Kind::integer:
      return bits_ + (group_ == 0 ? per_row : 32.0 / static_cast<double>(group_));
    default:
      return 8.0 * traits(type_).block_bytes / traits(type_).block_length;
  }
}

std::string RoundedForm::refusal(int64_t columns) const {
  const int64_t block = kind_ == Kind::block ? traits(type_).block_length : 1;
  return columns % block == 0 ? "" : fmt::format("rows of {} are not whole blocks of {}", columns, name_);
}

void RoundedForm::round_rows(const float* x, int64_t rows, int64_t columns, const float* importance,
                             float* out) const {
  const int64_t n = rows * columns;
  switch (kind_) {
    case Kind::block: {
      std::vector<std::byte> blocks(dtype_bytes(type_, static_cast<uint64_t>(n)));
      quantize_rows(*block_type(type_), x, rows, columns, importance, blocks.data());
      return widen(blocks.data(), type_, 0, n, out);
    }
    case Kind::plain:
      return round_plain(x, n, type_, out);
    case Kind::nf4:
      return round_nf4(x, n, out);
    case Kind::fp8:
      for (int64_t r = 0; r < rows; ++r) round_fp8(x + r * columns, columns, type_, out + r * columns);
      return;
    case Kind::integer: {
      const UniformScheme scheme{.bits = bits_, .range = CodeRange::symmetric, .group = group_};
      for (int64_t r = 0; r < rows; ++r) round_integers(x + r * columns, columns, scheme, out + r * columns);
      return;
    }
  }
}

Tensor RoundedForm::round(const Tensor& matrix, const float* importance) const {
  const int64_t rows = matrix.rows(), columns = matrix.cols();
  Tensor result = Tensor::empty({rows, columns});
  if (rows == 0 || columns == 0) return result;
  const float* x = matrix.data<float>();
  float* out = result.data<float>();
  // Whole blocks of every form, also of those that do not end with a row.
  const int64_t rows_of_blocks = kFourBitBlock / std::gcd(kFourBitBlock, columns);
  const int64_t step = std::max<int64_t>(1, kPiece / columns / rows_of_blocks) * rows_of_blocks;
  parallel_items((rows + step - 1) / step, [&](int64_t piece, int) {
    stop_if_interrupted();
    const int64_t first = piece * step, count = std::min(step, rows - first);
    round_rows(x + first * columns, count, columns, importance, out + first * columns);
  });
  return result;
}

std::vector<RoundedForm> rounded_forms(std::string_view list) {
  std::vector<RoundedForm> forms;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    RoundedForm form(list.substr(0, comma));
    const bool is_new = std::none_of(forms.begin(), forms.end(),
                                     [&](const RoundedForm& other) { return other.name() == form.name(); });
    if (is_new) forms.push_back(std::move(form));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return forms;
}

void RoundingError::add(const RoundingError& other) {
  squared += other.squared;
  energy += other.energy;
  output_squared += other.output_squared;
  output_energy += other.output_energy;
}

double RoundingError::relative() const {
  return ratio(squared, energy);
}

double RoundingError::relative_output() const {
  return ratio(output_squared, output_energy);
}

RoundingError rounding_error(const Tensor& weight, const Tensor& rounded, const InputStatistics* inputs) {
  const int64_t rows = weight.rows(), columns = weight.cols();
  const float *w = weight.data<float>(), *r = rounded.data<float>();
  const bool by_columns = inputs != nullptr && !inputs->has_products();
  // A sum for each row, so that the result does not depend on the number of threads.
  std::vector<RoundingError> sums(static_cast<size_t>(rows));
  parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      RoundingError& sum = sums[static_cast<size_t>(row)];
      for (int64_t c = 0; c < columns; ++c) {
        const double value = w[row * columns + c], difference = value - r[row * columns + c];
        sum.squared += difference * difference;
        sum.energy += value * value;
        if (!by_columns) continue;
        const double input = inputs->squares()[static_cast<size_t>(c)];
        sum.output_squared += difference * difference * input;
        sum.output_energy += value * value * input;
      }
    }
  });
  RoundingError result;
  for (const auto& sum : sums) result.add(sum);
  if (inputs != nullptr && inputs->has_products()) {
    result.output_squared = output_error(weight, rounded, inputs->products());
    result.output_energy = output_error(weight, Tensor::zeros({rows, columns}), inputs->products());
  }
  return result;
}

}  // namespace qkv
