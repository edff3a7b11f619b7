// What `generate` and `chat` share: flags (which model, how tokens are chosen, when to stop) and the
// answering itself.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "adapter_flags.h"
#include "cache_flags.h"
#include "qkv/core/parallel.h"
#include "qkv/engine/engine.h"
#include "qkv/engine/session.h"
#include "qkv/models/bundle.h"
#include "sampling_flags.h"

namespace CLI {
class App;
}

namespace qkv {

struct GenerationFlags {
  std::string model;
  AdapterFlags adapters;
  int64_t max_tokens = 256;
  int64_t min_tokens = 0;
  SamplingFlags sampling;
  std::vector<std::string> stop, ban;
  int64_t context = 0;
  std::string compute_type = "auto", activations = "int8";
  CacheFlags cache;
  bool mapped = false;  // weights are read where the file is mapped
  std::string draft_model;
  bool lookup = false;
  int64_t draft_tokens = 16;
  bool deterministic = false;
  std::string session;  // a file to go on from and to leave; none: empty
  std::shared_ptr<const Grammar> grammar;  // of the answer; compiled while the flags are read

  void add_to(CLI::App& command);
  // The model with its adapters.
  Bundle load() const;
  // Refuses impossible values before a model is loaded.
  void check() const;
  // What the flags say about answering a prompt.
  Request request(const Bundle& bundle, std::vector<int32_t> prompt) const;
  // "auto" computes in bf16 where the weights are bf16 and the processor multiplies them natively. Loads the
  // draft model.
  EngineOptions engine(const Bundle& bundle) const;

 private:
  void add_grammar_flags(CLI::App& command);
};

// "int8" or "f32", as --activations takes them. Error otherwise.
Activations activations_from_name(const std::string& name);

// Answers one request, passing text on as it comes; on a terminal a long prompt shows its progress. Ctrl-C
// cancels the request. Error if it fails. `session`, unless null, gets what it takes to go on.
Completion stream_answer(Engine& engine, Request request, FunctionRef<void(std::string_view text)> show,
                         std::shared_ptr<Session>* session = nullptr);

// "prefill 12 tokens, 340 tokens/s; decode 64 tokens, 55.1 tokens/s; peak memory ...".
std::string performance_sentence(const EngineStats& stats);

}  // namespace qkv
