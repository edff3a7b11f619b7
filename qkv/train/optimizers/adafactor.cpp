// Adafactor (Shazeer & Stern, arXiv 1804.04235) with an external learning rate and without momentum: the
// second moments of a matrix (R, C) are the outer product of a row and a column vector, R + C numbers in
// place of R C.
//   r = b r + (1 - b) mean of (g^2 + 1e-30) over columns, c likewise over rows, b = 1 - t^-0.8
//   u = g / sqrt(r c / mean of r), divided by max(1, rms(u)); p -= lr (u + wd p)
// Vectors keep all their second moments.
#include <algorithm>
#include <cmath>

#include "qkv/train/optimizers/optimizers.h"

namespace qkv::optimizers {
namespace {

constexpr double kTiny = 1e-30;

class Adafactor : public Optimizer {
 public:
  Adafactor(Module& module, const OptimizerConfig& config) : Optimizer(module, config) {}

 protected:
  std::vector<StateShape> state_shapes(const Slot& slot) const override {
    const Shape& shape = slot.parameter.shape();
    if (shape.rank() < 2) return {{"v", shape}};
    return {{"rows", Shape{shape.rows()}}, {"columns", Shape{shape.cols()}}};
  }

  void update(Slot& slot, const float* gradient, float lr, float grad_scale) override {
    const bool matrix = slot.parameter.shape().rank() > 1;
    const int64_t n = slot.parameter.elements(), cols = matrix ? slot.parameter.cols() : n, rows = n / cols;
    const double keep = 1 - std::pow(static_cast<double>(steps()), -0.8);
    const auto g = [&](int64_t i) { return static_cast<double>(gradient[i] * grad_scale); };
    float* first = slot.state[0].data<float>();
    float* second = matrix ? slot.state[1].data<float>() : nullptr;
    if (matrix) {
      parallel_for(rows, std::max<int64_t>(1, (1 << 14) / cols), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          double sum = 0;
          for (int64_t c = 0; c < cols; ++c) sum += g(r * cols + c) * g(r * cols + c) + kTiny;
          first[r] = static_cast<float>(keep * static_cast<double>(first[r]) +
                                        (1 - keep) * sum / static_cast<double>(cols));
        }
      });
      parallel_for(cols, std::max<int64_t>(1, (1 << 14) / rows), [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          double sum = 0;
          for (int64_t r = 0; r < rows; ++r) sum += g(r * cols + c) * g(r * cols + c) + kTiny;
          second[c] = static_cast<float>(keep * static_cast<double>(second[c]) +
                                         (1 - keep) * sum / static_cast<double>(rows));
        }
      });
    } else {
      for_elements(n, [&](int64_t i) {
        first[i] =
            static_cast<float>(keep * static_cast<double>(first[i]) + (1 - keep) * (g(i) * g(i) + kTiny));
      });
    }
    double mean_row = 0;
    if (matrix) {
      for (int64_t r = 0; r < rows; ++r)
        mean_row += static_cast<double>(first[r]) / static_cast<double>(rows);
    }
    const auto scaled = [&](int64_t r, int64_t c) {
      const double v = matrix ? static_cast<double>(first[r]) / mean_row * static_cast<double>(second[c])
                              : static_cast<double>(first[c]);
      return g(r * cols + c) / std::sqrt(v);
    };
    // Sums of rows are added in order: the same bits for any number of threads.
    std::vector<double> squares(static_cast<size_t>(rows));
    parallel_for(rows, std::max<int64_t>(1, (1 << 14) / cols), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < cols; ++c) sum += scaled(r, c) * scaled(r, c);
        squares[static_cast<size_t>(r)] = sum;
      }
    });
    double total = 0;
    for (double square : squares) total += square;
    const double clip = std::max(1.0, std::sqrt(total / static_cast<double>(n)));
    float* p = slot.parameter.data<float>();
    const float decay = decay_of(slot);
    for_elements(n, [&](int64_t i) {
      p[i] -= lr * (static_cast<float>(scaled(i / cols, i % cols) / clip) + decay * p[i]);
    });
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_adafactor(Module& module, const OptimizerConfig& config) {
  return std::make_unique<Adafactor>(module, config);
}

}  // namespace qkv::optimizers
