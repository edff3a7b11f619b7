// Softmax, log-softmax, rows made to sum to one, and the gather of chosen columns.
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {
namespace {

// Applies `call(kernels, x, y, rows)` to blocks of rows of one or two inputs.
template <typename Call>
Tensor by_rows(const Tensor& x, const char* op, Call&& call) {
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  const int64_t cols = x.cols();
  if (x.elements() == 0) return y;
  with_float_type(x.dtype(), op, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    parallel_for(x.rows(), detail::row_grain(cols), [&](int64_t begin, int64_t end) {
      call(kernels().typed<T>(), type, begin * cols, y.data<T>() + begin * cols, end - begin);
    });
  });
  return y;
}

}  // namespace

Tensor softmax(const Tensor& x) {
  const int64_t cols = x.cols();
  Tensor y = by_rows(x, "softmax", [&](const auto& k, auto* t, int64_t offset, auto* out, int64_t rows) {
    k.softmax(x.data<std::remove_pointer_t<decltype(t)>>() + offset, out, rows, cols);
  });
  record("softmax", {x}, {&y}, [&] {
    return [kept = y.detach(), cols](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, by_rows(kept, "softmax", [&](const auto& k, auto* t, int64_t offset, auto* out, int64_t rows) {
        using T = std::remove_pointer_t<decltype(t)>;
        k.softmax_backward(kept.data<T>() + offset, grads[0].template data<T>() + offset, out, rows, cols);
      }));
    };
  });
  return y;
}

Tensor log_softmax(const Tensor& x) {
  const int64_t cols = x.cols();
  Tensor y = by_rows(x, "log_softmax", [&](const auto& k, auto* t, int64_t offset, auto* out, int64_t rows) {
    k.log_softmax(x.data<std::remove_pointer_t<decltype(t)>>() + offset, out, rows, cols);
  });
  record("log_softmax", {x}, {&y}, [&] {
    return [kept = y.detach(), cols](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, by_rows(kept, "log_softmax", [&](const auto& k, auto* t, int64_t offset, auto* out, int64_t rows) {
        using T = std::remove_pointer_t<decltype(t)>;
        k.log_softmax_backward(kept.data<T>() + offset, grads[0].template data<T>() + offset, out, rows, cols);
      }));
    };
  });
  return y;
}

Tensor gather_cols(const Tensor& x, const std::vector<int32_t>& columns) {
  const int64_t rows = x.rows(), cols = x.cols(), k = rows == 0 ? 1 : static_cast<int64_t>(columns.size()) / rows;
  require(static_cast<int64_t>(columns.size()) == rows * k && k > 0, "gather_cols: expected {} columns or a multiple, found {}", rows,
          columns.size());
  Tensor y = Tensor::empty(k == 1 ? Shape{rows} : Shape{rows, k}, x.dtype());
  with_float_type(x.dtype(), "gather_cols", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t i = 0; i < rows * k; ++i) {
      const int32_t c = columns[static_cast<size_t>(i)];
      require(0 <= c && c < cols, "gather_cols: row {}: expected a column below {}, found {}", i / k, cols, c);
      y.data<T>()[i] = x.data<T>()[i / k * cols + c];
    }
  });
  record("gather_cols", {x}, {&y}, [&] {
    return [=, shape = x.shape()](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dx = Tensor::zeros(shape, grads[0].dtype());
      with_float_type(dx.dtype(), "gather_cols", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        for (int64_t i = 0; i < rows * k; ++i) {
          T& to = dx.data<T>()[i / k * cols + columns[static_cast<size_t>(i)]];
          to = from_float<T>(to_float(to) + to_float(grads[0].data<T>()[i]));
        }
      });
      sink.add(0, dx);
    };
  });
  return y;
}

Tensor normalize_rows(const Tensor& x) {
  const int64_t rows = x.rows(), cols = x.cols();
  const auto sum_of = [cols](const auto* row) {
    float sum = 0;
    for (int64_t c = 0; c < cols; ++c) sum += to_float(row[c]);
    return sum;
  };
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  with_float_type(x.dtype(), "normalize_rows", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t r = 0; r < rows; ++r) {
      const T* in = x.data<T>() + r * cols;
      const float inverse = 1 / sum_of(in);
      for (int64_t c = 0; c < cols; ++c) y.data<T>()[r * cols + c] = from_float<T>(to_float(in[c]) * inverse);
    }
  });
  record("normalize_rows", {x}, {&y}, [&] {
    const Saved saved(x);
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {  // dx = (dy - sum(dy y)) / sum(x)
      const Tensor kept = saved.take();
      Tensor dx = Tensor::empty(kept.shape(), kept.dtype());
      with_float_type(kept.dtype(), "normalize_rows", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        for (int64_t r = 0; r < rows; ++r) {
          const T* in = kept.data<T>() + r * cols;
          const T* dy = grads[0].data<T>() + r * cols;
          const float inverse = 1 / sum_of(in);
          float dot = 0;
          for (int64_t c = 0; c < cols; ++c) dot += to_float(dy[c]) * to_float(in[c]);
          for (int64_t c = 0; c < cols; ++c) {
            dx.data<T>()[r * cols + c] = from_float<T>((to_float(dy[c]) - dot * inverse) * inverse);
          }
        }
      });
      sink.add(0, dx);
    };
  });
  return y;
}

}  // namespace qkv::ops
