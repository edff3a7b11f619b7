// The flags that choose how tokens are drawn, by the names that users of other programs know.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qkv/engine/sampler.h"
#include "qkv/models/bundle.h"

namespace CLI {
class App;
}

namespace qkv {

struct SamplingFlags {
  std::optional<float> temperature, top_p, min_p, repeat_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> dry_breakers;
  std::vector<std::string> logit_bias;
  std::string order;
  SamplerOptions others;  // all options that a model's configuration does not set

  void add_to(CLI::App& command);
  // Refuses impossible values before a model is loaded.
  void check() const;
  // A flag if it was given, else the model's generation_config.json, else temperature 0.8 and top-p 0.95.
  // Without --seed a seed is made up.
  SamplerOptions options(const Bundle& bundle) const;

 private:
  SamplerOptions with_flags(SamplerOptions options) const;
};

}  // namespace qkv
