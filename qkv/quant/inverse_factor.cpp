#include "qkv/quant/inverse_factor.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/gemm.h"

namespace qkv {
namespace {

constexpr int64_t kBlock = 64;

MatrixOperand at(const float* matrix, int64_t n, int64_t row, int64_t column, bool transposed = false) {
  return {matrix + row * n + column, DType::f32, n, transposed};
}

// Rows and columns in reverse.
Tensor reversed(const Tensor& in) {
  const int64_t n = in.rows();
  Tensor out = Tensor::empty({n, n});
  const float* from = in.data<float>();
  float* to = out.data<float>();
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < n; ++c) to[r * n + c] = from[(n - 1 - r) * n + (n - 1 - c)];
  return out;
}

// A small lower triangular matrix in double.
struct Triangle {
  int64_t n = 0;
  std::array<double, kBlock * kBlock> values{};
  double& operator()(int64_t r, int64_t c) { return values[static_cast<size_t>(r * n + c)]; }
};

// The Cholesky factor of a diagonal block; false if there is none.
bool factorize(const float* a, int64_t stride, Triangle& l) {
  for (int64_t r = 0; r < l.n; ++r) {
    for (int64_t c = 0; c <= r; ++c) {
      double sum = a[r * stride + c];
      for (int64_t k = 0; k < c; ++k) sum -= l(r, k) * l(c, k);
      if (r != c) {
        l(r, c) = sum / l(c, c);
      } else if (sum > 0 && std::isfinite(sum)) {
        l(r, r) = std::sqrt(sum);
      } else {
        return false;
      }
    }
  }
  return true;
}

Triangle inverse(Triangle& l) {
  Triangle x;
  x.n = l.n;
  for (int64_t c = 0; c < l.n; ++c) {
    x(c, c) = 1 / l(c, c);
    for (int64_t r = c + 1; r < l.n; ++r) {
      double sum = 0;
      for (int64_t k = c; k < r; ++k) sum += l(r, k) * x(k, c);
      x(r, c) = -sum / l(r, r);
    }
  }
  return x;
}

// In place: the lower triangle of `matrix` becomes its Cholesky factor, block column by block column.
// `inverses` receives the inverses of the diagonal blocks.
bool cholesky(Tensor& matrix, std::vector<Triangle>& inverses) {
  const int64_t n = matrix.rows();
  float* a = matrix.data<float>();
  Tensor negated = Tensor::empty({n, kBlock});
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t last = std::min(n, first + kBlock), width = last - first;
    Triangle l;
    l.n = width;
    if (!factorize(a + first * n + first, n, l)) return false;
    for (int64_t r = 0; r < width; ++r)
      for (int64_t c = 0; c <= r; ++c) a[(first + r) * n + first + c] = static_cast<float>(l(r, c));
    inverses.push_back(inverse(l));
    Triangle& x = inverses.back();
    // The block below: A21 L11^-T, row by row.
    float* minus = negated.data<float>();
    parallel_for(n - last, 8, [&](int64_t begin, int64_t end) {
      std::array<double, kBlock> row{};
      for (int64_t r = last + begin; r < last + end; ++r) {
        for (int64_t c = 0; c < width; ++c) {
          double sum = 0;
          for (int64_t k = 0; k <= c; ++k) sum += a[r * n + first + k] * x(c, k);
          row[static_cast<size_t>(c)] = sum;
        }
        for (int64_t c = 0; c < width; ++c) {
          a[r * n + first + c] = static_cast<float>(row[static_cast<size_t>(c)]);
          minus[(r - last) * kBlock + c] = -a[r * n + first + c];
        }
      }
    });
    if (last < n)
      gemm(n - last, n - last, width, {minus, DType::f32, kBlock, false}, at(a, n, last, first, true),
           a + last * n + last, DType::f32, n, true);
  }
  return true;
}

// The inverse of a lower triangular matrix, block row by block row.
Tensor inverse_of(const Tensor& lower, std::vector<Triangle>& diagonal) {
  const int64_t n = lower.rows();
  Tensor result = Tensor::zeros({n, n});
  const float* l = lower.data<float>();
  float* x = result.data<float>();
  Tensor product = Tensor::empty({kBlock, n});
  float* p = product.data<float>();
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t last = std::min(n, first + kBlock), width = last - first;
    Triangle& d = diagonal[static_cast<size_t>(first / kBlock)];
    for (int64_t r = 0; r < width; ++r)
      for (int64_t c = 0; c <= r; ++c) x[(first + r) * n + first + c] = static_cast<float>(d(r, c));
    if (first == 0) continue;
    gemm(width, first, first, at(l, n, first, 0), at(x, n, 0, 0), p, DType::f32, n, false);
    parallel_for(first, 16, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t r = 0; r < width; ++r) {
          double sum = 0;
          for (int64_t k = 0; k <= r; ++k) sum += d(r, k) * p[k * n + c];
          x[(first + r) * n + c] = static_cast<float>(-sum);
        }
      }
    });
  }
  return result;
}

}  // namespace

std::optional<Tensor> inverse_factor(const Tensor& h) {
  require(h.shape().rank() == 2 && h.rows() == h.cols(), "inverse factor: expected a square matrix, found {}",
          h.shape().str());
  Tensor lower = reversed(h);
  std::vector<Triangle> diagonal;
  if (!cholesky(lower, diagonal)) return std::nullopt;
  return reversed(inverse_of(lower, diagonal));
}

Tensor damped(const Tensor& h, double damping) {
  const int64_t n = h.rows();
  Tensor result = h.clone();
  float* a = result.data<float>();
  double sum = 0;
  int64_t live = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += a[i * n + i];
    live += a[i * n + i] > 0 ? 1 : 0;
  }
  const double mean = live == 0 ? 1.0 : sum / static_cast<double>(live);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!(a[i * n + i] > 0)) a[i * n + i] = static_cast<float>(mean);
    total += a[i * n + i];
  }
  for (int64_t i = 0; i < n; ++i)
    a[i * n + i] += static_cast<float>(damping * total / static_cast<double>(n));
  return result;
}

Tensor damped_inverse_factor(const Tensor& h, double damping, std::string_view where) {
  require(damping >= 0 && std::isfinite(damping), "{}: expected a damping of at least 0, found {}", where,
          damping);
  constexpr int kAttempts = 5;
  double used = damping;
  for (int attempt = 0; attempt < kAttempts; ++attempt, used = std::max(used, 1e-3) * 10) {
    if (auto factor = inverse_factor(damped(h, used))) return *factor;
  }
  fail(
      "{}: expected a positive definite sum of products of the inputs, found one that is not even with a "
      "damping of {}",
      where, used / 10);
}

}  // namespace qkv
