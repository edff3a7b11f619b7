// qkv quantize --method: GPTQ, AWQ, SmoothQuant, LLM.int8(), NF4, FP4, FP8 and plain rounding, for Hugging
// Face's libraries.
#pragma once

#include <memory>
#include <string>

#include "qkv/compress/quantize_weights.h"

namespace CLI {
class App;
}

namespace qkv {

struct MethodCommand {
  std::string method;     // empty: none of these
  std::string calibrate;  // the verb's own --calibrate
  std::string eval;
  int64_t group = 128;
  bool no_clip = false, no_nested_scales = false;
  double max_kld = 0;
  WeightQuantizeOptions options;
};

// Adds the flags to the verb, which has --calibrate already.
std::shared_ptr<MethodCommand> add_method_options(CLI::App& verb);
// Runs the command if a method was asked for; false otherwise.
bool run_method(const MethodCommand& command, const std::string& input, const std::string& output, bool json);

}  // namespace qkv
