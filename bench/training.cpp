// Training steps of two Llama shapes and of Mambas as large as the first: forward, backward, clipping and AdamW, on random
// tokens. One JSON line per shape.
//   bench_training [--shape a|b|mamba|mamba2] [--dtype auto|f32|bf16] [--steps N]
// bench/compare_training.sh runs it in turn with the PyTorch peer.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "qkv/tensor/gemm.h"
#include "qkv/tensor/machine.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/optimizer.h"

namespace qkv {
namespace {

struct Shape {
  const char *name, *model_type;
  int64_t dim, layers, heads, hidden, vocabulary, batch, length;
  bool tied;
};
constexpr Shape kShapes[] = {
    {"a", "llama", 288, 6, 6, 768, 32000, 8, 256, true},      // 15M
    {"b", "llama", 768, 12, 12, 2048, 50304, 4, 256, true},   // the size of GPT-2 small
    {"mamba", "mamba", 288, 12, 0, 0, 32000, 8, 256, true},
    {"mamba2", "mamba2", 288, 12, 9, 0, 32000, 8, 256, true},
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void run(const Shape& shape, DType type, int steps) {
  Json config = {{"model_type", shape.model_type},
                 {"vocab_size", shape.vocabulary},
                 {"hidden_size", shape.dim},
                 {"num_hidden_layers", shape.layers},
                 {"tie_word_embeddings", shape.tied}};
  if (shape.hidden > 0) {
    config["intermediate_size"] = shape.hidden;
    config["num_attention_heads"] = shape.heads;
    config["max_position_embeddings"] = shape.length;
  } else if (shape.heads > 0) {
    config["num_heads"] = shape.heads;
    config["n_groups"] = 1;
  }
  const auto model = make_model(config, "bench");
  initialize_weights(*model, 1, 0.02f);
  model->set_trainable(true);
  const auto optimizer = make_optimizer(*model, {});
  Rng rng(7);
  std::vector<double> seconds;
  for (int step = 0; step <= steps; ++step) {
    std::vector<int32_t> tokens, targets;
    for (int64_t i = 0; i < shape.batch * shape.length; ++i) {
      tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(shape.vocabulary))));
      targets.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(shape.vocabulary))));
    }
    Pass pass = Pass::whole(std::vector<int64_t>(static_cast<size_t>(shape.batch), shape.length));
    pass.compute_type = type;
    const double start = now();
    backward(ops::linear_cross_entropy(model->forward(tokens, pass), model->head(), targets),
             Tensor::full({1}, 1.0f / static_cast<float>(tokens.size())));
    const double norm = optimizer->gradient_norm();
    optimizer->step(1.0, std::min(1.0, 1.0 / (norm + 1e-6)));
    if (step > 0) seconds.push_back(now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double tokens = static_cast<double>(shape.batch * shape.length);
  const double flops = model->training_flops_per_token(static_cast<double>(shape.length)) * tokens / median;
  const double peak = type == DType::bf16 && bf16_products_are_native() ? measure_bf16_flops() : measure_f32_flops();
  const Json line = {{"shape", shape.name},
                     {"dtype", std::string(name(type))},
                     {"isa", isa_name(active_isa())},
                     {"threads", num_threads()},
                     {"parameters", model->parameter_count()},
                     {"tokens_per_second", tokens / median},
                     {"gflops", flops / 1e9},
                     {"peak_gflops", peak / 1e9},
                     {"utilization", flops / peak},
                     {"vm_hwm_bytes", peak_resident_bytes()},
                     {"tensor_peak_bytes", memory_use().peak}};
  fmt::print("{}\n", dump_json(line));
}

int main_checked(int argc, char** argv) {
  std::string shape = "a", dtype = "auto";
  int steps = 5;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--shape") == 0) shape = argv[i + 1];
    if (std::strcmp(argv[i], "--dtype") == 0) dtype = argv[i + 1];
    if (std::strcmp(argv[i], "--steps") == 0) steps = std::max(1, std::atoi(argv[i + 1]));
  }
  const DType type = dtype == "auto" ? (bf16_products_are_native() ? DType::bf16 : DType::f32) : dtype == "bf16" ? DType::bf16 : DType::f32;
  for (const Shape& candidate : kShapes) {
    if (shape == candidate.name) {
      run(candidate, type, steps);
      return 0;
    }
  }
  fail("--shape: expected a, b, mamba or mamba2, found '{}'", shape);
}

}  // namespace
}  // namespace qkv

int main(int argc, char** argv) {
  try {
    return qkv::main_checked(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 2;
  }
}
