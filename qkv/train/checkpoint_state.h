// Checkpoints of a run: a Hugging Face model directory (f32 masters) beside the optimizer's state and everything else an
// exact resume needs. Each appears whole.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/models/bundle.h"
#include "qkv/train/optimizer.h"

namespace qkv {

struct TrainerProgress {
  int64_t step = 0, tokens = 0;
  double best_valid_loss = std::numeric_limits<double>::infinity();
  int64_t best_step = -1;
  int64_t evaluations_without_gain = 0;
  double elapsed_seconds = 0;
};

// With adapters in the bundle only the last is trained, and only it is saved. `own`: the recipe's parameters, or null.
void save_training_state(const std::string& path, Bundle& bundle, Module* own, Optimizer& optimizer, const TrainerProgress& progress,
                         const Json& recipe_state, const Json& resolved_config);
// Fills the model, the optimizer and the progress. Error naming what is missing or does not fit.
void load_training_state(const std::string& path, Bundle& bundle, Module* own, Optimizer& optimizer, TrainerProgress& progress, Json& recipe_state);

// Complete checkpoints under `output`/checkpoints with their steps, oldest first.
std::vector<std::pair<int64_t, std::string>> list_checkpoints(const std::string& output);

}  // namespace qkv
