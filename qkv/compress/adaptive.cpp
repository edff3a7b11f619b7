#include "qkv/compress/adaptive.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "qkv/compress/compressed_model.h"
#include "qkv/compress/sensitivity.h"
#include "qkv/core/error.h"

namespace qkv {
namespace {

// Operations that probing may take unasked: some minutes on a small machine.
constexpr double kProbeOperations = 2e13;

class Adaptation {
 public:
  Adaptation(const Checkpoint& source, const QuantizeOptions& quantize, const AdaptiveOptions& options,
             const AdaptiveModel& parent, const AdaptiveProgress& progress)
      : source_(source), quantize_(quantize), options_(options), parent_(parent), progress_(progress) {
    const int asked = options.file_bytes.has_value() + options.bits_per_weight.has_value() +
                      options.max_divergence.has_value();
    require(asked == 1, "expected one of a size, bits per weight or a KL divergence to aim for, found {}",
            asked);
    require(!options.max_divergence || parent.measure,
            "a KL divergence to aim for needs a text to measure it on");
    result_.plan = plan_quantization(source, quantize);
  }

  AdaptiveResult run() {
    std::vector<TensorCosts> costs = possible_types(result_.plan, quantize_, options_.types);
    require(!costs.empty(), "{}: expected matrices to quantize, found none", source_.path());
    allocator_ = std::make_unique<Allocator>(result_.plan, std::move(costs));
    if (!options_.max_divergence)
      (void)allocator_->within(target_bytes());  // refused before anything is measured
    {
      std::unique_ptr<Sensitivity> sensitivity = measure_costs();
      if (sensitivity) probe(*sensitivity);
    }
    result_.allocation = options_.max_divergence ? search() : allocator_->within(target_bytes());
    draw_curve();
    set_types(result_.plan, allocator_->types(result_.allocation), quantize_);
    if (parent_.measure && !result_.measured) {
      CompressedModel compressed = make("making", result_.plan);
      result_.measured = parent_.measure(compressed.model());
      result_.tensors = compressed.take_tensors();
    }
    result_.costs = std::move(allocator_->costs());
    return std::move(result_);
  }

 private:
  CostProgress costs_progress(const char* stage) const {
    return [this, stage](size_t done, size_t total) {
      if (progress_) progress_(stage, done, total);
    };
  }

  std::unique_ptr<Sensitivity> measure_costs() {
    if (parent_.model == nullptr) {
      measure_errors(source_, result_.plan, quantize_, allocator_->costs(), costs_progress("errors"));
      return nullptr;
    }
    result_.by_divergence = true;
    const int64_t context = std::min(options_.context, parent_.model->info().max_positions);
    CalibrationOptions calibration;
    calibration.context = context;
    calibration.sequences = std::max<int64_t>(1, options_.tokens / context);
    auto sensitivity = std::make_unique<Sensitivity>(
        source_, result_.plan, quantize_, *parent_.model,
        calibration_sequences(parent_.model->info(), *parent_.tokenizer, parent_.calibration, calibration),
        options_.seed);
    sensitivity->measure(allocator_->costs(), costs_progress("sensitivities"));
    return sensitivity;
  }

  // Bytes of a file that has so many bits per weight.
  uint64_t target_bytes() const {
    if (options_.file_bytes) return *options_.file_bytes;
    const double bits = *options_.bits_per_weight;
    require(bits > 0 && bits <= 64, "expected a number of bits per weight above 0, found {}", bits);
    // Headers and padding do not count as weights.
    const uint64_t beside = gguf_bytes(result_.plan) - result_.plan.bytes_to;
    return beside + static_cast<uint64_t>(bits / 8 * static_cast<double>(result_.plan.elements));
  }

  // Every tensor in the type that it would get. A divergence to aim for begins where the prediction meets it.
  void probe(Sensitivity& sensitivity) {
    std::vector<TensorCosts>& costs = allocator_->costs();
    if (options_.probe == AdaptiveOptions::Probe::never) return;
    if (options_.probe == AdaptiveOptions::Probe::automatic &&
        sensitivity.probe_operations(costs.size(), options_.probe_tokens) > kProbeOperations)
      return;
    const Allocation first = options_.max_divergence ? predicted_within(*options_.max_divergence)
                                                     : allocator_->within(target_bytes());
    for (size_t i = 0; i < costs.size(); ++i) {
      sensitivity.probe(costs[i], first.choices[i], options_.probe_tokens);
      if (progress_) progress_("probing", i + 1, costs.size());
    }
    compare_probes();
  }

  void compare_probes() {
    std::vector<double> x, y, ratios;
    for (const TensorCosts& tensor : allocator_->costs()) {
      if (tensor.probed <= 0 || tensor.predicted <= 0) continue;
      x.push_back(std::log(tensor.predicted));
      y.push_back(std::log(tensor.probed));
      ratios.push_back(tensor.probed / tensor.predicted);
    }
    if (x.empty()) return;
    const auto n = static_cast<double>(x.size());
    double mean_x = 0, mean_y = 0, xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      mean_x += x[i] / n;
      mean_y += y[i] / n;
    }
    for (size_t i = 0; i < x.size(); ++i) {
      xx += (x[i] - mean_x) * (x[i] - mean_x);
      yy += (y[i] - mean_y) * (y[i] - mean_y);
      xy += (x[i] - mean_x) * (y[i] - mean_y);
    }
    std::sort(ratios.begin(), ratios.end());
    result_.probes = {x.size(), xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0, ratios[ratios.size() / 2]};
  }

  // The smallest file that is predicted to meet a divergence.
  Allocation predicted_within(double divergence) const {
    uint64_t low = allocator_->smallest_file(), high = allocator_->largest_file();
    Allocation smallest = allocator_->within(low);
    if (smallest.predicted <= divergence) return smallest;
    while (high - low > std::max<uint64_t>(1, high / 2000)) {
      const uint64_t middle = low + (high - low) / 2;
      (allocator_->within(middle).predicted <= divergence ? high : low) = middle;
    }
    return allocator_->within(high);
  }

  CompressedModel make(const char* stage, const QuantizePlan& plan) const {
    return CompressedModel(source_, plan, quantize_, [&](uint64_t bytes) {
      constexpr uint64_t kMega = 1'000'000;
      if (progress_) progress_(stage, bytes / kMega, plan.bytes_from / kMega);
    });
  }

  Divergence measure(const Allocation& allocation) {
    QuantizePlan plan = result_.plan;
    set_types(plan, allocator_->types(allocation), quantize_);
    return parent_.measure(make("making", plan).model());
  }

  Allocation search() {
    DivergenceSearch search;
    search.limit = *options_.max_divergence;
    return smallest_within(*allocator_, search, [&](const Allocation& allocation) {
      const Divergence found = measure(allocation);
      result_.curve.push_back({allocation.file_bytes, allocation.predicted, found});
      return found.kl.value;
    });
  }

  void draw_curve() {
    const std::vector<Allocation> points = allocator_->curve(options_.curve_points);
    // Those to measure lie around the result, where the question is.
    std::vector<size_t> order(points.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto far = [&](size_t i) {
      return std::abs(std::log(static_cast<double>(points[i].file_bytes) /
                               static_cast<double>(result_.allocation.file_bytes)));
    };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return far(a) < far(b); });
    for (size_t i = 0; i < order.size(); ++i) {
      const Allocation& point = points[order[i]];
      CurvePoint drawn{point.file_bytes, point.predicted, {}};
      if (parent_.measure && i < options_.measured_points) {
        if (progress_) progress_("curve", i + 1, std::min(options_.measured_points, order.size()));
        drawn.measured = measure(point);
      }
      result_.curve.push_back(std::move(drawn));
    }
    std::stable_sort(result_.curve.begin(), result_.curve.end(),
                     [](const CurvePoint& a, const CurvePoint& b) { return a.file_bytes < b.file_bytes; });
  }

  const Checkpoint& source_;
  const QuantizeOptions& quantize_;
  const AdaptiveOptions& options_;
  const AdaptiveModel& parent_;
  const AdaptiveProgress& progress_;
  AdaptiveResult result_;
  std::unique_ptr<Allocator> allocator_;
};

}  // namespace

AdaptiveResult allocate_types(const Checkpoint& source, const QuantizeOptions& quantize,
                              const AdaptiveOptions& options, const AdaptiveModel& parent,
                              const AdaptiveProgress& progress) {
  return Adaptation(source, quantize, options, parent, progress).run();
}

}  // namespace qkv
