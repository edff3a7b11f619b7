// What an adapter is: the adapter_config.json of PEFT directories, read, checked and written.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "qkv/core/json.h"

namespace qkv {

struct AdapterConfig {
  enum class Kind : uint8_t { lora, ia3, vera };
  Kind kind = Kind::lora;
  int64_t rank = 8;
  double alpha = 16;             // lora
  bool rank_stabilized = false;  // lora: scaling alpha / sqrt(rank) instead of alpha / rank
  bool decomposed = false;       // lora: DoRA
  double dropout = 0;
  double initial_d = 0.1;  // vera

  // Which modules, by Hugging Face's names: those that are, or end with '.' and, one of `targets`; or that
  // match all of `target_pattern`; or, with "all-linear" among the targets, every linear layer of the blocks.
  std::vector<std::string> targets;
  std::string target_pattern;
  std::vector<int64_t> layers;           // only in these; empty: in all
  std::vector<std::string> feedforward;  // ia3: modules whose inputs are scaled, named likewise
  // lora: rank and alpha of modules whose name ends with a match of the pattern; the first that does counts.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;

  // Whole modules that are trained beside, by Hugging Face's names ("lm_head", "embed_tokens", "score").
  std::vector<std::string> modules_to_save;
  // lora: how A and B begin. pissa and loftq: train/adapters.h; adalora has gates that take ranks away.
  enum class Start : uint8_t { zero, pissa, loftq, adalora };
  Start start = Start::zero;

  std::string base_model;  // whatever the adapter's author called it

  bool is_target(const std::string& module) const;
  bool is_feedforward(const std::string& module) const;
  bool is_saved(const std::string& module) const;
  int64_t rank_of(const std::string& module) const;
  // s of nn/lora.h.
  double scaling_of(const std::string& module) const;
};

// Error `<where>: key '...': expected ..., found ...`, also for what PEFT can do and this program cannot.
AdapterConfig read_adapter_config(const Json& json, const std::string& where);
// `transposed`: the modules are stored (inputs, outputs) (GPT-2).
Json peft_config(const AdapterConfig& config, bool transposed);

}  // namespace qkv
