#include "qkv/train/adapter_starts.h"

#include <cmath>
#include <string>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/quant/low_rank.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

// The weights of a module's layers, one below the other, without the adapter.
Tensor matrix_of(const AdapterModule& module) {
  std::vector<Tensor> parts;
  for (const AdapterPart& part : module.parts) {
    const auto* adapted = dynamic_cast<const AdaptedWeight*>(&part.linear->weight());
    parts.push_back((adapted != nullptr ? adapted->base() : part.linear->weight()).dequantize());
  }
  return parts.size() == 1 ? parts[0] : ops::concat_rows(parts);
}

// a (r, K) and b, over all parts, such that scaling b a is the low-rank matrix.
void set_factors(const AdapterModule& module, const LowRank& found) {
  Tensor a = module.a;
  const int64_t r = module.rank, k = module.inputs;
  for (int64_t i = 0; i < r; ++i) {
    const auto root = static_cast<float>(
        std::sqrt(static_cast<double>(found.values[static_cast<size_t>(i)]) / module.scaling));
    for (int64_t c = 0; c < k; ++c) a.data<float>()[i * k + c] = root * found.right.data<float>()[i * k + c];
  }
  a.mark_modified();
  int64_t row = 0;
  for (const AdapterPart& part : module.parts) {
    Tensor b = part.b;
    for (int64_t n = 0; n < part.outputs; ++n, ++row) {
      for (int64_t i = 0; i < r; ++i) {
        const auto root = static_cast<float>(
            std::sqrt(static_cast<double>(found.values[static_cast<size_t>(i)]) / module.scaling));
        b.data<float>()[n * r + i] = root * found.left.data<float>()[row * r + i];
      }
    }
    b.mark_modified();
  }
}

void require_rank(const AdapterModule& module) {
  require(module.rank <= std::min(module.inputs, module.outputs),
          "adapter: module '{}': expected a rank up to its shorter side, {}, found {}", module.name,
          std::min(module.inputs, module.outputs), module.rank);
}

}  // namespace

void start_at_singular_vectors(Adapter& adapter, uint64_t seed) {
  const NoGrad off;
  for (const AdapterModule& module : adapter.modules()) {
    stop_if_interrupted();
    require_rank(module);
    set_factors(module, leading_singular_vectors(matrix_of(module), module.rank, seed));
    Tensor start = module.start_a;
    start.copy_from(module.a.detach());
    for (const AdapterPart& part : module.parts) {
      Tensor start_b = part.start_b;
      start_b.copy_from(part.b.detach());
    }
  }
}

double start_at_quantization_error(Adapter& adapter, Model& original, uint64_t seed) {
  const NoGrad off;
  std::unordered_map<std::string, AdapterModule> theirs;
  for (AdapterModule& module : linear_modules(original, Naming::hugging_face))
    theirs.emplace(module.name, module);
  double made_good = 0, all = 0;
  for (const AdapterModule& module : adapter.modules()) {
    stop_if_interrupted();
    require_rank(module);
    const auto found = theirs.find(module.name);
    require(found != theirs.end() && found->second.inputs == module.inputs &&
                found->second.outputs == module.outputs,
            "adapter.original: module '{}': expected {} x {}, as in the base, found {}", module.name,
            module.outputs, module.inputs,
            found == theirs.end() ? std::string("none")
                                  : fmt::format("{} x {}", found->second.outputs, found->second.inputs));
    const Tensor lost = ops::add(matrix_of(found->second), ops::scale(matrix_of(module), -1));
    const LowRank factors = leading_singular_vectors(lost, module.rank, seed);
    for (const float value : factors.values)
      made_good += static_cast<double>(value) * static_cast<double>(value);
    for (const float value : lost.span<float>())
      all += static_cast<double>(value) * static_cast<double>(value);
    set_factors(module, factors);
  }
  return all > 0 ? made_good / all : 1;
}

}  // namespace qkv
