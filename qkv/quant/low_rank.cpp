#include "qkv/quant/low_rank.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

constexpr int64_t kMore = 8;  // vectors beside the wanted ones, which carry what the last of these would lose

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// Makes the rows of x (p, n) orthonormal: Gram-Schmidt, twice, which is enough (Giraud et al., 2005). Rows
// that depend on those before become zero.
void orthonormalize(Tensor& x) {
  const int64_t p = x.rows(), n = x.cols();
  for (int64_t i = 0; i < p; ++i) {
    float* row = x.data<float>() + i * n;
    const double before = std::sqrt(dot(row, row, n));
    for (int pass = 0; pass < 2; ++pass) {
      std::vector<double> along(static_cast<size_t>(i));
      parallel_for(i, std::max<int64_t>(1, (1 << 15) / n), [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j)
          along[static_cast<size_t>(j)] = dot(row, x.data<float>() + j * n, n);
      });
      for (int64_t j = 0; j < i; ++j)
        kernels().axpy(-static_cast<float>(along[static_cast<size_t>(j)]), x.data<float>() + j * n, row, n);
    }
    const double norm = std::sqrt(dot(row, row, n));
    const float factor = norm > 1e-6 * before && norm > 0 ? static_cast<float>(1 / norm) : 0.0f;
    for (int64_t c = 0; c < n; ++c) row[c] *= factor;
  }
}

// Eigenvalues of a symmetric matrix (p, p), which is overwritten, and eigenvectors as columns of `vectors`,
// by Jacobi's rotations.
std::vector<double> eigen(std::vector<double>& a, std::vector<double>& vectors, size_t p) {
  vectors.assign(p * p, 0);
  for (size_t i = 0; i < p; ++i) vectors[i * p + i] = 1;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (size_t i = 0; i < p; ++i) {
      for (size_t j = 0; j < p; ++j) (i == j ? all : off) += a[i * p + j] * a[i * p + j];
    }
    if (off <= 1e-24 * all) break;
    for (size_t i = 0; i + 1 < p; ++i) {
      for (size_t j = i + 1; j < p; ++j) {
        if (a[i * p + j] == 0) continue;
        const double theta = (a[j * p + j] - a[i * p + i]) / (2 * a[i * p + j]);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (size_t k = 0; k < p; ++k) {
          const double x = a[k * p + i], y = a[k * p + j];
          a[k * p + i] = c * x - s * y;
          a[k * p + j] = s * x + c * y;
        }
        for (size_t k = 0; k < p; ++k) {
          const double x = a[i * p + k], y = a[j * p + k];
          a[i * p + k] = c * x - s * y;
          a[j * p + k] = s * x + c * y;
        }
        for (size_t k = 0; k < p; ++k) {
          const double x = vectors[k * p + i], y = vectors[k * p + j];
          vectors[k * p + i] = c * x - s * y;
          vectors[k * p + j] = s * x + c * y;
        }
      }
    }
  }
  std::vector<double> values(p);
  for (size_t i = 0; i < p; ++i) values[i] = a[i * p + i];
  return values;
}

}  // namespace

LowRank leading_singular_vectors(const Tensor& matrix, int64_t rank, uint64_t seed, int iterations) {
  const int64_t n = matrix.rows(), k = matrix.cols();
  require(matrix.shape().rank() == 2 && matrix.dtype() == DType::f32 && rank >= 1 && rank <= std::min(n, k),
          "singular vectors: expected an f32 matrix and a rank up to its shorter side, found {} and {}",
          describe(matrix), rank);
  const NoGrad off;
  const Tensor w = matrix.detach();
  const int64_t p = std::min(rank + kMore, std::min(n, k));
  // Subspaces are held as rows: q (p, N), z (p, K).
  Tensor z = Tensor::empty({p, k});
  Rng rng(seed, 0x73766473);
  for (int64_t i = 0; i < z.elements(); ++i) z.data<float>()[i] = rng.normal();
  Tensor q = ops::matmul(z, w, false, true);
  orthonormalize(q);
  for (int i = 0; i < iterations; ++i) {
    z = ops::matmul(q, w);
    orthonormalize(z);
    q = ops::matmul(z, w, false, true);
    orthonormalize(q);
  }
  const Tensor small = ops::matmul(q, w);  // (p, K): q w, of which q's rows hold all that matters
  const auto size = static_cast<size_t>(p);
  std::vector<double> gram(size * size), vectors;
  for (int64_t i = 0; i < p; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double value = dot(small.data<float>() + i * k, small.data<float>() + j * k, k);
      gram[static_cast<size_t>(i * p + j)] = gram[static_cast<size_t>(j * p + i)] = value;
    }
  }
  const std::vector<double> squares = eigen(gram, vectors, size);
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return squares[a] > squares[b]; });

  LowRank result{Tensor::zeros({n, rank}), {}, Tensor::zeros({rank, k})};
  for (int64_t r = 0; r < rank; ++r) {
    const size_t column = order[static_cast<size_t>(r)];
    const double value = std::sqrt(std::max(0.0, squares[column]));
    result.values.push_back(static_cast<float>(value));
    for (int64_t i = 0; i < p; ++i) {
      const double part = vectors[static_cast<size_t>(i) * size + column];
      for (int64_t row = 0; row < n; ++row)
        result.left.data<float>()[row * rank + r] += static_cast<float>(part) * q.data<float>()[i * n + row];
      if (value > 0)
        kernels().axpy(static_cast<float>(part / value), small.data<float>() + i * k,
                       result.right.data<float>() + r * k, k);
    }
  }
  return result;
}

}  // namespace qkv
