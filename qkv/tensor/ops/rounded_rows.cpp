#include "qkv/tensor/ops/rounded_rows.h"

#include <algorithm>
#include <vector>

#include "qkv/tensor/batch_invariance.h"
#include "qkv/tensor/convert.h"
#include "qkv/tensor/ops/detail.h"
#include "qkv/tensor/ops/row_streams.h"

namespace qkv::ops::detail {
namespace {

// Rows of a weight per item of a product of many tokens: several panels, enough items for all threads.
constexpr int64_t kItemRows = 64;

// Up to so many tokens the weights are streamed from memory, each thread its share; beyond, arithmetic takes longer, and
// threads take items as they finish.
constexpr int64_t kStreamedRows = 8;

int64_t row_bytes(const Tensor& w) {
  return static_cast<int64_t>(dtype_bytes(w.dtype(), static_cast<uint64_t>(w.cols())));
}

void multiply_rows(const Int8Rows& x, const BlockProduct& product, int64_t first, int64_t count,
                   void* scratch) {
  const Tensor& w = *product.weight;
  kernels().blocks.int8_product[*block_type(w.dtype())](w.raw() + first * row_bytes(w), x, product.y + first,
                                                        count, product.stride, scratch);
}

// Decoding of one or a few sequences: bound by reading the weights.
void multiply_few(const Int8Rows& x, std::span<const BlockProduct> products) {
  std::vector<StoredRows> matrices;
  matrices.reserve(products.size());
  for (const BlockProduct& product : products) matrices.push_back({product.weight->dim(0), row_bytes(*product.weight)});
  const bool panels = x.rows > kInt8FewRows;
  const Scratch scratch(panels ? int8_scratch_bytes(x.cols) : 0);
  stream_rows(matrices, panels ? kInt8PanelRows : 4, [&](size_t m, int64_t first, int64_t count, int part) {
    multiply_rows(x, products[m], first, count, scratch.of(part));
  });
}

void multiply_many(const Int8Rows& x, std::span<const BlockProduct> products) {
  struct Item {
    const BlockProduct* product;
    int64_t first, count;
  };
  std::vector<Item> items;
  for (const BlockProduct& product : products) {
    const int64_t rows = product.weight->dim(0);
    for (int64_t first = 0; first < rows; first += kItemRows)
      items.push_back({&product, first, std::min(kItemRows, rows - first)});
  }
  const Scratch scratch(int8_scratch_bytes(x.cols));
  parallel_items(static_cast<int64_t>(items.size()), [&](int64_t i, int thread) {
    const Item& item = items[static_cast<size_t>(i)];
    multiply_rows(x, *item.product, item.first, item.count, scratch.of(thread));
  });
}

Int8Rows one_row(const Int8Rows& x, int64_t r) {
  Int8Rows row = x;
  row.codes += r * x.cols;
  row.scales += r * (x.cols / 32);
  row.sums32 += r * (x.cols / 32);
  row.sums16 += r * (x.cols / 16);
  row.code_sums16 += r * (x.cols / 16);
  row.rows = 1;
  return row;
}

// With the bits that each token has alone: rows of a weight meet one token after the other, in the cache.
void multiply_alone(const Int8Rows& x, std::span<const BlockProduct> products) {
  std::vector<StoredRows> matrices;
  matrices.reserve(products.size());
  for (const BlockProduct& product : products) matrices.push_back({product.weight->dim(0), row_bytes(*product.weight)});
  stream_rows(matrices, 4, [&](size_t m, int64_t first, int64_t count, int) {
    BlockProduct product = products[m];
    for (int64_t r = 0; r < x.rows; ++r, product.y += product.stride) {
      multiply_rows(one_row(x, r), product, first, count, nullptr);
    }
  });
}

}  // namespace

RoundedRows::RoundedRows(const Tensor& x) {
  const Tensor wide = x.detach().to(DType::f32);
  const int64_t rows = wide.rows(), cols = wide.cols(), n = rows * cols;
  if (cols % 32 != 0) {
    fail("linear: expected activations in groups of 32 to round, found {}", describe(x));
  }
  // Codes, then four arrays of 4-byte elements.
  const int64_t code_bytes = (n + 63) / 64 * 64;
  memory_ = Tensor::empty({code_bytes + 4 * (2 * (n / 32) + 2 * (n / 16))}, DType::u8);
  auto* codes = reinterpret_cast<int8_t*>(memory_.raw());
  auto* scales = reinterpret_cast<float*>(memory_.raw() + code_bytes);
  float *sums32 = scales + n / 32, *sums16 = sums32 + n / 32;
  auto* code_sums16 = reinterpret_cast<int32_t*>(sums16 + n / 16);
  const float* in = wide.data<float>();
  parallel_for(n / 32, kElementGrain / 32, [&](int64_t begin, int64_t end) {
    kernels().blocks.round_activations(in + 32 * begin, 32 * (end - begin), codes + 32 * begin,
                                       scales + begin, sums16 + 2 * begin, sums32 + begin,
                                       code_sums16 + 2 * begin);
  });
  rows_ = {codes, scales, sums16, sums32, code_sums16, rows, cols};
}

bool takes_rounded_rows(DType weight) {
  const auto type = block_type(weight);
  return type && kernels().blocks.int8_product[*type] != nullptr;
}

void rounded_products(const RoundedRows& x, std::span<const BlockProduct> products) {
  if (batch_invariant()) {
    multiply_alone(x.rows(), products);
  } else if (x.rows().rows <= kStreamedRows) {
    multiply_few(x.rows(), products);
  } else {
    multiply_many(x.rows(), products);
  }
}

}  // namespace qkv::ops::detail
