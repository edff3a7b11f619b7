#include "qkv/quant/block_rounding.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/kernels/block_codebooks.h"
#include "qkv/kernels/kernels.h"
#include "qkv/quant/error_feedback.h"
#include "qkv/quant/inverse_factor.h"
#include "qkv/quant/pack_blocks.h"
#include "qkv/quant/quantize.h"

namespace qkv {
namespace {

// The levels that a weight's code can be, as pack_codes() takes them.
template <class Block>
struct CodeLevels;
template <int low, int high>
struct LinearCodes {
  static int8_t nearest(float v) {
    return static_cast<int8_t>(std::lrint(std::clamp(v, static_cast<float>(low), static_cast<float>(high))));
  }
};
struct Iq4Codes {
  static int8_t nearest(float v) {
    int8_t best = kIq4Values[0];
    for (const int8_t level : kIq4Values) {
      if (std::abs(v - static_cast<float>(level)) < std::abs(v - static_cast<float>(best))) best = level;
    }
    return best;
  }
};
template <>
struct CodeLevels<BlockQ4_0> : LinearCodes<-8, 7> {};
template <>
struct CodeLevels<BlockQ4_1> : LinearCodes<0, 15> {};
template <>
struct CodeLevels<BlockQ5_0> : LinearCodes<-16, 15> {};
template <>
struct CodeLevels<BlockQ5_1> : LinearCodes<0, 31> {};
template <>
struct CodeLevels<BlockQ8_0> : LinearCodes<-127, 127> {};
template <>
struct CodeLevels<BlockIq4Nl> : Iq4Codes {};
template <>
struct CodeLevels<BlockQ2K> : LinearCodes<0, 3> {};
template <>
struct CodeLevels<BlockQ3K> : LinearCodes<-4, 3> {};
template <>
struct CodeLevels<BlockQ4K> : LinearCodes<0, 15> {};
template <>
struct CodeLevels<BlockQ5K> : LinearCodes<0, 31> {};
template <>
struct CodeLevels<BlockQ6K> : LinearCodes<-32, 31> {};
template <>
struct CodeLevels<BlockIq4Xs> : Iq4Codes {};

template <class Block>
concept HasCodes = requires {
  &CodeLevels<Block>::nearest;
};

double bits_of(DType type) {
  return 8.0 * traits(type).block_bytes / traits(type).block_length;
}

// value = step * level + offset.
struct Step {
  float step, offset;
};

// The steps of a block's values, read off two blocks with its scales. kIq4Values has no 0, but 1 and no
// offset.
template <class Block>
void steps_of(BlockType type, Block block, Step* steps) {
  constexpr auto n = static_cast<size_t>(Block::length);
  int8_t levels[n];
  float at_one[n], at_zero[n] = {};
  std::fill_n(levels, n, int8_t{1});
  pack_codes(levels, block);
  kernels().blocks.dequantize[type](&block, at_one, n);
  if constexpr (!std::is_base_of_v<Iq4Codes, CodeLevels<Block>>) {
    std::fill_n(levels, n, int8_t{0});
    pack_codes(levels, block);
    kernels().blocks.dequantize[type](&block, at_zero, n);
  }
  for (size_t i = 0; i < n; ++i) steps[i] = {at_one[i] - at_zero[i], at_zero[i]};
}

// The blocks of all rows in a range of columns: their scales, then codes column by column in any order.
template <class Block>
class BlockColumns {
 public:
  static constexpr auto length = static_cast<int64_t>(Block::length);
  BlockColumns(BlockType type, const Tensor& factor, const std::vector<int64_t>& order, int64_t rows,
               int64_t columns, int64_t span)
      : type_(type), rows_(rows), columns_(columns), span_(span), weights_(static_cast<size_t>(columns)) {
    // What an error in a column costs once the others have made up for it.
    for (int64_t i = 0; i < columns; ++i) {
      const float diagonal = factor.data<float>()[i * columns + i];
      weights_[static_cast<size_t>(order[static_cast<size_t>(i)])] = 1.0f / (diagonal * diagonal);
    }
    blocks_.resize(static_cast<size_t>(rows * span / length));
    steps_.resize(static_cast<size_t>(rows * span));
    codes_.resize(steps_.size());
  }

  // Scales for columns [first, first + span) of the weight.
  void find_scales(const Tensor& weight, int64_t first) {
    first_ = first;
    constexpr int64_t kRows = 32;  // the search takes several blocks at a time
    const float* w = weight.data<float>();
    parallel_for((rows_ + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(kRows * span_));
      for (int64_t row = begin * kRows; row < std::min(end * kRows, rows_); row += kRows) {
        const int64_t count = std::min(kRows, rows_ - row);
        for (int64_t r = 0; r < count; ++r)
          std::copy_n(w + (row + r) * columns_ + first, span_, values.data() + r * span_);
        Block* blocks = blocks_.data() + row * (span_ / length);
        quantize_rows(type_, values.data(), count, span_, weights_.data() + first, blocks);
        for (int64_t b = 0; b < count * (span_ / length); ++b)
          steps_of(type_, blocks[b], steps_.data() + row * span_ + b * length);
      }
    });
  }

  // The value that the weight becomes.
  float round(int64_t row, int64_t column, float value) {
    const auto at = static_cast<size_t>(row * span_ + column - first_);
    const Step step = steps_[at];
    codes_[at] = CodeLevels<Block>::nearest(step.step == 0 ? 0.0f : (value - step.offset) / step.step);
    return step.step * static_cast<float>(codes_[at]) + step.offset;
  }

  // The row's blocks with the codes, to the whole matrix.
  void write(int64_t row, Block* out) {
    for (int64_t b = 0; b < span_ / length; ++b) {
      Block block = blocks_[static_cast<size_t>(row * (span_ / length) + b)];
      pack_codes(codes_.data() + row * span_ + b * length, block);
      out[(row * columns_ + first_) / length + b] = block;
    }
  }

 private:
  BlockType type_;
  int64_t rows_, columns_, span_, first_ = 0;
  std::vector<float> weights_;  // of columns
  std::vector<Block> blocks_;   // (rows, span / length)
  std::vector<Step> steps_;     // (rows, span)
  std::vector<int8_t> codes_;   // (rows, span)
};

template <class Block>
void compensate(const Tensor& weight, const Tensor& products, const BlockRoundingOptions& options,
                std::string_view where, Block* out) {
  const int64_t rows = weight.rows(), columns = weight.cols(), length = Block::length;
  const std::string place = fmt::format("[gptq] {}", where);
  std::vector<int64_t> order(static_cast<size_t>(columns));
  std::iota(order.begin(), order.end(), 0);
  if (options.act_order) order = largest_inputs_first(products);
  const Tensor factor = damped_inverse_factor(
      options.act_order ? permuted_columns(products, order, true) : products, options.damping, place);
  Tensor values = options.act_order ? permuted_columns(weight, order, false) : weight.clone();
  BlockColumns<Block> blocks(*block_type(options.type), factor, order, rows, columns,
                             options.act_order ? columns : length);
  if (options.act_order) blocks.find_scales(weight, 0);
  walk_columns(
      values, factor, options.act_order ? 128 : length,
      [&](int64_t first, int64_t) {
        if (!options.act_order) blocks.find_scales(values, first);
      },
      [&](RowPiece& piece) {
        for (int64_t i = 0; i < piece.count; ++i)
          piece.change(i,
                       blocks.round(piece.row, order[static_cast<size_t>(piece.first + i)], piece.values[i]));
        if (!options.act_order) blocks.write(piece.row, out);
      });
  if (!options.act_order) return;
  for (int64_t row = 0; row < rows; ++row) blocks.write(row, out);
}

}  // namespace

bool can_compensate(DType type) {
  const auto block = block_type(type);
  return block && with_block(*block, []<class Block>(Block*) { return HasCodes<Block>; });
}

DType nearest_compensated(DType type) {
  DType nearest = DType::q4_k;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto candidate = static_cast<DType>(i);
    if (!can_compensate(candidate)) continue;
    if (std::abs(bits_of(candidate) - bits_of(type)) < std::abs(bits_of(nearest) - bits_of(type)))
      nearest = candidate;
  }
  return can_compensate(type) ? type : nearest;
}

Tensor gptq_blocks(const Tensor& weight, const Tensor& products, const BlockRoundingOptions& options,
                   std::string_view where) {
  const int64_t rows = weight.rows(), columns = weight.cols();
  require(products.rows() == columns && products.cols() == columns,
          "[gptq] {}: expected sums of products of {} inputs, found {}", where, columns,
          products.shape().str());
  require(can_compensate(options.type),
          "[gptq] {}: expected a type with a code for every weight, found {}; the nearest is {}", where,
          name(options.type), name(nearest_compensated(options.type)));
  require(columns % traits(options.type).block_length == 0,
          "[gptq] {}: expected rows of whole blocks of {} values, found rows of {}", where,
          traits(options.type).block_length, columns);
  Tensor result = Tensor::empty(weight.shape(), options.type);
  if (rows == 0 || columns == 0) return result;
  with_block(*block_type(options.type), [&]<class Block>(Block*) {
    if constexpr (HasCodes<Block>)
      compensate(weight, products, options, where, reinterpret_cast<Block*>(result.raw()));
  });
  return result;
}

}  // namespace qkv
