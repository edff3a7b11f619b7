#include "qkv/models/stored_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

// A tensor as rows of equal size: vectors have one element per row.
struct Rows {
  int64_t count;
  int64_t cols;
  size_t bytes;  // of a row
};

Rows rows_of(const Shape& shape, DType type) {
  const bool vector = shape.rank() < 2;
  const int64_t count = vector ? shape.elements() : shape.rows();
  const int64_t cols = vector ? 1 : shape.cols();
  return {count, cols, static_cast<size_t>(dtype_bytes(type, static_cast<uint64_t>(cols)))};
}

// Whether the parameter's rows lie one after the other.
bool is_one_run(const Placement& at, int64_t rows) {
  return at.rope_head == 0 && (at.run == 0 || at.run >= rows || at.run == at.stride);
}

// Elements of `Size` bytes: matrix (rows, cols) <-> stored (cols, stored_rows).
template <size_t Size>
void transpose(std::byte* matrix, std::byte* stored, const Placement& at, int64_t rows, int64_t cols,
               int64_t stored_rows, bool into_matrix) {
  constexpr int64_t kTile =
      64;  // rows that are read together, so that the strided side is used a cache line at a time
  parallel_for((rows + kTile - 1) / kTile, 1, [&](int64_t first, int64_t last) {
    for (int64_t begin = first * kTile; begin < std::min(rows, last * kTile); begin += kTile) {
      const int64_t end = std::min(rows, begin + kTile);
      for (int64_t c = 0; c < cols; ++c) {
        for (int64_t r = begin; r < end; ++r) {
          std::byte* const inner = matrix + static_cast<size_t>(r * cols + c) * Size;
          std::byte* const outer =
              stored + static_cast<size_t>(c * stored_rows + stored_row(at, r, rows)) * Size;
          std::memcpy(into_matrix ? inner : outer, into_matrix ? outer : inner, Size);
        }
      }
    }
  });
}

void transpose_any(std::byte* matrix, std::byte* stored, const StoredTensor& place, const Shape& parameter,
                   DType type, bool into_matrix) {
  require(!is_block(type), "tensor '{}': expected a plain type, since it is stored transposed, found {}",
          place.name, name(type));
  // With three dimensions, every one of the first dimension's matrices by itself.
  const int64_t batch = place.shape.rank() == 3 ? place.shape[0] : 1;
  const int64_t rows = parameter.rows() / batch, cols = parameter.cols(), stored_rows = place.shape.cols();
  const auto step = static_cast<size_t>(dtype_bytes(type, static_cast<uint64_t>(rows * cols)));
  for (int64_t b = 0; b < batch; ++b, matrix += step, stored += step) {
    switch (traits(type).block_bytes) {
      case 1:
        transpose<1>(matrix, stored, place.at, rows, cols, stored_rows, into_matrix);
        break;
      case 2:
        transpose<2>(matrix, stored, place.at, rows, cols, stored_rows, into_matrix);
        break;
      case 4:
        transpose<4>(matrix, stored, place.at, rows, cols, stored_rows, into_matrix);
        break;
      default:
        transpose<8>(matrix, stored, place.at, rows, cols, stored_rows, into_matrix);
        break;
    }
  }
}

bool is_transposed(const StoredTensor& place, const Shape& parameter) {
  return place.at.transposed && parameter.rank() >= 2;
}

// stored -> parameter, or with `forward` parameter -> stored.
Tensor transformed(const Tensor& values, StoredValues kind, bool forward, const std::string& stored_name) {
  const Tensor from = values.to(DType::f32);
  Tensor result = Tensor::empty(from.shape());
  const float* in = from.data<float>();
  float* out = result.data<float>();
  for (int64_t i = 0; i < from.elements(); ++i) {
    if (kind == StoredValues::plus_one) {
      out[i] = forward ? 1.0f + in[i] : in[i] - 1.0f;
    } else if (forward) {
      out[i] = -std::exp(in[i]);
    } else {
      require(in[i] <= 0, "tensor '{}': expected -exp(w), which is negative, found {}", stored_name, in[i]);
      out[i] = std::log(-in[i]);
    }
  }
  return result;
}

}  // namespace

bool lies_as_it_is(const StoredTensor& place) {
  return place.at.values == StoredValues::same && !place.at.transposed && place.at.rope_head == 0 &&
         (place.at.run == 0 || place.at.run == place.at.stride);
}

Tensor take_parameter(const Tensor& stored, const StoredTensor& place, const Shape& parameter) {
  const DType type = stored.dtype();
  Tensor values;
  if (is_transposed(place, parameter)) {
    const Tensor plain =
        is_block(type) ? stored.to(DType::f32) : stored;  // blocks lie along the wrong dimension
    values = Tensor::empty(parameter, plain.dtype());
    transpose_any(values.raw(), const_cast<std::byte*>(plain.raw()), place, parameter, plain.dtype(), true);
  } else if (stored.elements() == parameter.elements() &&
             is_one_run(place.at, rows_of(parameter, type).count)) {
    values = stored.view(parameter);
  } else {
    const Rows rows = rows_of(parameter, type);
    if (is_one_run(place.at, rows.count)) {
      const Tensor flat = stored.view({stored.elements() / rows.cols, rows.cols});
      values = flat.row_view(place.at.offset, place.at.offset + rows.count).view(parameter);
    } else {
      values = Tensor::empty(parameter, type);
      std::byte* to = values.raw();
      const std::byte* from = stored.raw();
      parallel_for(rows.count, std::max<int64_t>(1, int64_t{1 << 16} / static_cast<int64_t>(rows.bytes)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; ++r) {
                       std::memcpy(
                           to + static_cast<size_t>(r) * rows.bytes,
                           from + static_cast<size_t>(stored_row(place.at, r, rows.count)) * rows.bytes,
                           rows.bytes);
                     }
                   });
    }
  }
  return place.at.values == StoredValues::same ? values
                                               : transformed(values, place.at.values, false, place.name);
}

void put_parameter(Tensor& stored, const StoredTensor& place, const Tensor& parameter) {
  const DType type = stored.dtype();
  const Tensor values = place.at.values == StoredValues::same
                            ? parameter
                            : transformed(parameter, place.at.values, true, place.name);
  require(values.dtype() == type, "tensor '{}': expected {} values, found {}", place.name, name(type),
          name(values.dtype()));
  if (is_transposed(place, parameter.shape())) {
    return transpose_any(const_cast<std::byte*>(values.raw()), stored.raw(), place, parameter.shape(), type,
                         false);
  }
  if (stored.elements() == parameter.elements() && is_one_run(place.at, parameter.elements())) {
    if (stored.bytes() > 0) std::memcpy(stored.raw(), values.raw(), stored.bytes());
    return;
  }
  const Rows rows = rows_of(parameter.shape(), type);
  std::byte* to = stored.raw();
  const std::byte* from = values.raw();
  parallel_for(rows.count, std::max<int64_t>(1, int64_t{1 << 16} / static_cast<int64_t>(rows.bytes)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   std::memcpy(to + static_cast<size_t>(stored_row(place.at, r, rows.count)) * rows.bytes,
                               from + static_cast<size_t>(r) * rows.bytes, rows.bytes);
                 }
               });
}

}  // namespace qkv
