// qkv quantize --target-size, --target-bpw, --max-kld: the file of that size or divergence that changes the
// model least.
//
// Costs of types are measured (sensitivity.h; relative errors where there is no text), the best choice is
// made (allocate.h), and where it can be afforded every tensor is probed in the type that it got and the
// choice made again with costs so corrected. What comes out is measured on the text that is meant for that.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/compress/allocate.h"
#include "qkv/eval/divergence.h"
#include "qkv/models/decoder.h"

namespace qkv {

struct AdaptiveOptions {
  // What is asked for: exactly one of them.
  std::optional<uint64_t> file_bytes = {};
  std::optional<double> bits_per_weight = {};  // of all tensors' data
  std::optional<double> max_divergence = {};   // measured, so `measure` is needed
  std::vector<DType> types = {};               // to choose from; empty: the usual ones
  int64_t context = 256, tokens = 4096;        // of the calibration text
  int64_t probe_tokens = 2048;
  enum class Probe : uint8_t {
    automatic,
    always,
    never
  } probe = Probe::automatic;  // automatic: where it is quick
  size_t curve_points = 24;    // of the trade-off, predicted
  size_t measured_points = 0;  // and of how many of them the divergence is measured
  uint64_t seed = 0;
};

// The parent, where there is text.
struct AdaptiveModel {
  Decoder* model = nullptr;              // null: no sensitivities
  const Tokenizer* tokenizer = nullptr;  // of it
  std::string_view calibration = {};
  // The divergence of a model from the parent; empty: nothing is measured.
  std::function<Divergence(const Model& model)> measure = {};
};

struct CurvePoint {
  uint64_t file_bytes = 0;
  double predicted = 0;
  std::optional<Divergence> measured = {};
};

// How predictions of single tensors compare with what probing measured.
struct ProbeAgreement {
  size_t tensors = 0;
  double correlation = 0;   // of the logarithms
  double median_ratio = 0;  // measured over predicted
};

struct AdaptiveResult {
  QuantizePlan plan;
  std::vector<TensorCosts> costs;
  Allocation allocation;
  bool by_divergence = false;  // costs are nats a token, not relative errors
  std::vector<CurvePoint> curve;
  std::optional<Divergence> measured;
  ProbeAgreement probes;
  std::vector<Tensor> tensors;  // of the plan, where they had to be made for measuring: for write_quantized()
};

// `progress`: what is being done, and how much of it. Errors as plan_quantization(), possible_types() and
// Allocator::within().
using AdaptiveProgress = std::function<void(const char* stage, size_t done, size_t total)>;
AdaptiveResult allocate_types(const Checkpoint& source, const QuantizeOptions& quantize,
                              const AdaptiveOptions& options, const AdaptiveModel& parent,
                              const AdaptiveProgress& progress = {});

}  // namespace qkv
