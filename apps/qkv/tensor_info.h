// qkv info --tensors: an analysis of a checkpoint's tensors as JSON and as text.
#pragma once

#include <string>

#include "qkv/compress/analysis.h"
#include "qkv/core/json.h"

namespace qkv {

struct TensorInfoRequest {
  std::string error_types;  // "q4_k,nf4"; "" for none
  std::string calibrate;    // a text file; "" for none
  CalibrationOptions calibration;
};

// With lines of progress.
CheckpointAnalysis analyze_with_progress(const Checkpoint& checkpoint, const TensorInfoRequest& request);
Json tensors_json(const CheckpointAnalysis& analysis);
void print_tensors(const CheckpointAnalysis& analysis);

}  // namespace qkv
