// Sums, and ops that move data: reshape, slices, concatenation, row selection.
#include <cstring>
#include <numeric>

#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {
namespace {

// Copies `cols` columns of `rows` rows between matrices of `width` bytes per element.
void copy_block(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride, int64_t rows, int64_t cols,
                int64_t width) {
  parallel_for(rows, detail::row_grain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(to + r * to_stride * width, from + r * from_stride * width, static_cast<size_t>(cols * width));
    }
  });
}

int64_t width_of(const Tensor& t) { return static_cast<int64_t>(dtype_bytes(t.dtype(), 1)); }

}  // namespace

Tensor sum(const Tensor& x) {
  double total = 0;
  const std::vector<float> values = x.to_floats();
  for (float v : values) total += v;
  Tensor y = Tensor::full({1}, static_cast<float>(total));
  record("sum", {x}, {&y}, [&] {
    return [shape = x.shape(), type = x.dtype()](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, Tensor::full(shape, grads[0].item(), type));
    };
  });
  return y;
}

Tensor mean(const Tensor& x) {
  require(x.elements() > 0, "mean: expected at least one element, found {}", describe(x));
  return scale(sum(x), 1.0f / static_cast<float>(x.elements()));
}

Tensor reshape(const Tensor& x, Shape shape) {
  Tensor y = x.view(shape);
  record("reshape", {x}, {&y}, [&] {
    return [from = x.shape()](const std::vector<Tensor>& grads, GradientSink& sink) { sink.add(0, grads[0].view(from)); };
  });
  return y;
}

Tensor slice_rows(const Tensor& x, int64_t begin, int64_t end) {
  Tensor y = x.row_view(begin, end);
  record("slice_rows", {x}, {&y}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dx = sink.zeroed(0).row_view(begin, end);
      const Tensor dy = grads[0].to(dx.dtype());
      with_float_type(dx.dtype(), "slice_rows", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        kernels().typed<T>().add(dx.data<T>(), dy.data<T>(), dx.data<T>(), dx.elements());
      });
    };
  });
  return y;
}

Tensor slice_cols(const Tensor& x, int64_t begin, int64_t end) {
  const int64_t rows = x.rows(), cols = x.cols(), width = width_of(x);
  require(0 <= begin && begin <= end && end <= cols, "slice_cols: columns {}..{} are not in {}", begin, end, describe(x));
  Tensor y = Tensor::empty({rows, end - begin}, x.dtype());
  copy_block(x.raw() + begin * width, cols, y.raw(), end - begin, rows, end - begin, width);
  record("slice_cols", {x}, {&y}, [&] {
    return [=, shape = x.shape()](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dx = Tensor::zeros(shape, grads[0].dtype());
      copy_block(grads[0].raw(), end - begin, dx.raw() + begin * width, cols, rows, end - begin, width);
      sink.add(0, dx);
    };
  });
  return y;
}

std::vector<Tensor> split_cols(const Tensor& x, const std::vector<int64_t>& widths) {
  const int64_t rows = x.rows(), cols = x.cols(), width = width_of(x);
  std::vector<Tensor> parts;
  std::vector<Tensor*> outputs;
  parts.reserve(widths.size());
  int64_t at = 0;
  for (const int64_t n : widths) {
    require(0 <= n && at + n <= cols, "split_cols: pieces of {} do not make up {}", fmt::join(widths, " and "), describe(x));
    parts.push_back(Tensor::empty({rows, n}, x.dtype()));
    copy_block(x.raw() + at * width, cols, parts.back().raw(), n, rows, n, width);
    outputs.push_back(&parts.back());
    at += n;
  }
  require(at == cols, "split_cols: pieces of {} do not make up {}", fmt::join(widths, " and "), describe(x));
  record("split_cols", {x}, outputs, [&] {
    return [=, shape = x.shape(), type = x.dtype()](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dx = Tensor::empty(shape, type);
      int64_t begin = 0;
      for (size_t i = 0; i < widths.size(); ++i) {
        const Tensor part = grads[i].defined() ? grads[i] : Tensor::zeros({rows, widths[i]}, type);
        copy_block(part.raw(), widths[i], dx.raw() + begin * width, cols, rows, widths[i], width);
        begin += widths[i];
      }
      sink.add(0, dx);
    };
  });
  return parts;
}

Tensor concat_rows(const std::vector<Tensor>& parts) {
  require(!parts.empty(), "concat_rows: expected at least one tensor");
  const int64_t cols = parts[0].cols();
  int64_t rows = 0;
  for (const auto& part : parts) {
    require(part.cols() == cols && part.dtype() == parts[0].dtype(), "concat_rows: {} does not go with {}", describe(part),
            describe(parts[0]));
    rows += part.rows();
  }
  Tensor y = Tensor::empty({rows, cols}, parts[0].dtype());
  int64_t row = 0;
  for (const auto& part : parts) {
    y.row_view(row, row + part.rows()).copy_from(part.view({part.rows(), cols}));
    row += part.rows();
  }
  record("concat_rows", parts, {&y}, [&] {
    std::vector<Shape> shapes;
    for (const auto& part : parts) shapes.push_back(part.shape());
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      int64_t at = 0;
      for (size_t i = 0; i < shapes.size(); ++i) {
        const int64_t n = shapes[i].rows();
        if (sink.needs(i)) sink.add(i, grads[0].row_view(at, at + n).clone().view(shapes[i]));
        at += n;
      }
    };
  });
  return y;
}

Tensor concat_cols(const std::vector<Tensor>& parts) {
  require(!parts.empty(), "concat_cols: expected at least one tensor");
  const int64_t rows = parts[0].rows(), width = width_of(parts[0]);
  std::vector<int64_t> offsets = {0};
  for (const auto& part : parts) {
    require(part.rows() == rows && part.dtype() == parts[0].dtype(), "concat_cols: {} does not go with {}", describe(part),
            describe(parts[0]));
    offsets.push_back(offsets.back() + part.cols());
  }
  const int64_t cols = offsets.back();
  Tensor y = Tensor::empty({rows, cols}, parts[0].dtype());
  for (size_t i = 0; i < parts.size(); ++i) {
    copy_block(parts[i].raw(), parts[i].cols(), y.raw() + offsets[i] * width, cols, rows, parts[i].cols(), width);
  }
  record("concat_cols", parts, {&y}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      for (size_t i = 0; i + 1 < offsets.size(); ++i) {
        if (!sink.needs(i)) continue;
        const int64_t n = offsets[i + 1] - offsets[i];
        Tensor dx = Tensor::empty({rows, n}, grads[0].dtype());
        copy_block(grads[0].raw() + offsets[i] * width, cols, dx.raw(), n, rows, n, width);
        sink.add(i, dx);
      }
    };
  });
  return y;
}

Tensor select_rows(const Tensor& x, const std::vector<int64_t>& rows) {
  const int64_t cols = x.cols(), width = width_of(x);
  Tensor y = Tensor::empty({static_cast<int64_t>(rows.size()), cols}, x.dtype());
  for (size_t i = 0; i < rows.size(); ++i) {
    require(0 <= rows[i] && rows[i] < x.rows(), "select_rows: row {} is not in {}", rows[i], describe(x));
    std::memcpy(y.raw() + static_cast<int64_t>(i) * cols * width, x.raw() + rows[i] * cols * width, static_cast<size_t>(cols * width));
  }
  record("select_rows", {x}, {&y}, [&] {
    return [=, shape = x.shape()](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor dx = Tensor::zeros(shape, grads[0].dtype());
      with_float_type(dx.dtype(), "select_rows", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        for (size_t i = 0; i < rows.size(); ++i) {
          T* row = dx.data<T>() + rows[i] * cols;
          kernels().typed<T>().add(row, grads[0].data<T>() + static_cast<int64_t>(i) * cols, row, cols);
        }
      });
      sink.add(0, dx);
    };
  });
  return y;
}

}  // namespace qkv::ops
