// What `generate` and `chat` share: flags (which model, how tokens are chosen, when to stop) and the
// answering itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/parallel.h"
#include "qkv/engine/engine.h"
#include "qkv/models/bundle.h"

namespace CLI {
class App;
}

namespace qkv {

struct GenerationFlags {
  std::string model;
  int64_t max_tokens = 256;
  std::optional<float> temperature, top_p, min_p, repeat_penalty;
  std::optional<int32_t> top_k;
  int32_t repeat_window = 0;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  int64_t context = 0;
  std::string compute_type = "auto";

  void add_to(CLI::App& command);
  // Refuses impossible values before a model is loaded.
  void check() const;
  // A flag if it was given, else the model's generation_config.json, else temperature 0.8 and top-p 0.95.
  // Without --seed a seed is made up.
  SamplerOptions sampler(const Bundle& bundle) const;
  // "auto" computes in bf16 where the weights are bf16 and the processor multiplies them natively.
  EngineOptions engine(const Bundle& bundle) const;
};

// Answers one request, passing text on as it comes; on a terminal a long prompt shows its progress. Ctrl-C
// cancels the request. Error if it fails.
Completion stream_answer(Engine& engine, Request request, FunctionRef<void(std::string_view text)> show);

// "prefill 12 tokens, 340 tokens/s; decode 64 tokens, 55.1 tokens/s; peak memory ...".
std::string performance_sentence(const EngineStats& stats);

}  // namespace qkv
