// What quantizing costs a model, measured before anything is written: the parent on one side, the plan
// carried out in memory on the other.
#pragma once

#include <optional>
#include <string>

#include "qkv/core/json.h"
#include "qkv/eval/divergence.h"
#include "qkv/models/bundle.h"

namespace qkv {

class CostMeter {
 public:
  // Windows of a text: at most `context` tokens, the model's positions and half of the text; at most
  // `windows` of them (0: all). Error if the parent has no tokenizer or is no language model.
  CostMeter(const std::string& model, const std::string& text_file, int64_t context, int64_t windows);
  const Bundle& parent() const { return parent_; }
  Divergence measure(const Model& model) const;

 private:
  Bundle parent_;
  std::vector<TextWindow> windows_;
  WindowOptions options_;
};

// Several lines: divergence, same top token and perplexity, with 95 % intervals.
std::string cost_lines(const Divergence& cost, const std::string& text_file);
Json cost_json(const Divergence& cost, const std::string& text_file);

}  // namespace qkv
