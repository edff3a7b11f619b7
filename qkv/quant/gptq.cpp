#include "qkv/quant/gptq.h"

#include <algorithm>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/quant/error_feedback.h"
#include "qkv/quant/inverse_factor.h"

namespace qkv {
CodedMatrix gptq(const Tensor& weight, const Tensor& products, const GptqOptions& options,
                 std::string_view where) {
  const UniformScheme& scheme = options.scheme;
  scheme.require_valid();
  require(!scheme.one_scale, "[gptq] {}: expected scales per row or group, found one for the matrix", where);
  const int64_t rows = weight.rows(), columns = weight.cols(), group = scheme.columns_per_group(columns);
  require(products.rows() == columns && products.cols() == columns,
          "[gptq] {}: expected sums of products of {} inputs, found {}", where, columns,
          products.shape().str());
  CodedMatrix result(rows, columns, scheme);
  // A scale that does not depend on the order is taken from the weights as they are: one per row, or static
  // groups.
  const bool fixed = options.static_groups || result.groups == 1;
  if (fixed) {
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        for (int64_t g = 0; g < result.groups; ++g) {
          const int64_t first = g * group, count = std::min(group, columns - first);
          result.set_scale(
              row, g,
              find_scale({weight.data<float>() + row * columns + first, static_cast<size_t>(count)}, scheme));
        }
      }
    });
  }

  std::vector<int64_t> order(static_cast<size_t>(columns));
  std::iota(order.begin(), order.end(), 0);
  if (options.act_order) {
    order = largest_inputs_first(products);
    if (!fixed) {
      for (int64_t i = 0; i < columns; ++i)
        result.group_of[static_cast<size_t>(order[static_cast<size_t>(i)])] = static_cast<int32_t>(i / group);
    }
  }
  Tensor values = options.act_order ? permuted_columns(weight, order, false) : weight.clone();
  const Tensor factor =
      damped_inverse_factor(options.act_order ? permuted_columns(products, order, true) : products,
                            options.damping, fmt::format("[gptq] {}", where));
  const float* settled = values.data<float>();
  walk_columns(
      values, factor, options.block, [](int64_t, int64_t) {},
      [&](RowPiece& piece) {
        for (int64_t i = 0; i < piece.count; ++i) {
          const int64_t column = piece.first + i, original = order[static_cast<size_t>(column)];
          const int64_t g = result.group_of[static_cast<size_t>(original)];
          if (!fixed && column % group == 0) {
            const auto count = static_cast<size_t>(std::min(group, columns - column));
            result.set_scale(piece.row, g,
                             find_scale({settled + piece.row * columns + column, count}, scheme));
          }
          const ScaleAndZero scale = result.scale(piece.row, g);
          const int code = scale.code(piece.values[i], scheme.largest_code());
          result.codes[static_cast<size_t>(piece.row * columns + original)] = static_cast<uint8_t>(code);
          piece.change(i, scale.value(code));
        }
      });
  return result;
}

}  // namespace qkv
