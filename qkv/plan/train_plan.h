// What a run of tuning will need, before it runs: memory by measuring steps of the same settings and data on
// models of the same shape with few layers, of which the rest is a straight line. Whatever kind of weights,
// adapter, optimizer or recomputation a run has, its own code is what is measured, so the plan cannot
// disagree with it.
#pragma once

#include <cstdint>

#include "qkv/train/tune_job.h"

namespace qkv {

struct TrainPlan {
  int64_t layers = 0, measured_layers = 0;  // of the model; the deeper of the measured ones
  int64_t tokens = 0;                       // of the largest forward in the run's order of the data
  int64_t steps = 0;
  int64_t parameters = 0;
  uint64_t tensor_bytes = 0;    // at the peak of a step, as TrainResult::peak_tensor_bytes
  uint64_t mapped_bytes = 0;    // of the model's file, used where they lie
  uint64_t resident_bytes = 0;  // both and the program
  double measured_seconds = 0;  // that planning took
};

// Error as run_tuning() has for settings, model and data.
TrainPlan plan_training(TuneSettings settings);

}  // namespace qkv
