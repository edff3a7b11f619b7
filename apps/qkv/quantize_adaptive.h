// qkv quantize --target-size | --target-bpw | --max-kld: a type for every tensor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qkv/compress/adaptive.h"
#include "quantize_cost.h"

namespace CLI {
class App;
}

namespace qkv {

struct AdaptiveFlags {
  std::string size, types, report, probe = "auto";
  double bits = 0;
  int64_t tokens = 4096, seed = 0;
  size_t curve_points = 0;

  void add_to(CLI::App& verb);
  bool is_asked() const { return !size.empty() || bits > 0; }
};

struct AdaptiveCommand {
  std::string input, output, calibration, evaluation;  // the latter two: texts, or empty
  const AdaptiveFlags* flags = nullptr;
  double max_kld = 0;  // > 0: what to aim for, or with a size what not to pass
  bool json = false, dry_run = false;
};

// A type that a GGUF tensor can be given.
DType tensor_type(std::string name, const char* flag);

void quantize_adaptively(const AdaptiveCommand& command, const Checkpoint& source,
                         const QuantizeOptions& options, const CostMeter* meter);

}  // namespace qkv
