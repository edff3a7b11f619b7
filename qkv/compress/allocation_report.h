// What an adaptive allocation decided, and why: as an HTML page, and as JSON.
#pragma once

#include <string>

#include "qkv/compress/adaptive.h"
#include "qkv/core/json.h"

namespace qkv {

struct AllocationTexts {
  std::string model, output;
  std::string calibration, evaluation;  // names of the texts; empty: none
  std::string importance;               // where importances came from; empty: there are none
};

// The trade-off as a chart, bits by layer and kind of matrix as a map, and a row for every tensor: its type,
// what it costs, and what the next smaller and larger types would have saved and cost. Error naming the path
// if it cannot be written.
void write_allocation_report(const std::string& path, const AdaptiveResult& result,
                             const AllocationTexts& texts);

// Prediction, proof, probes, curve, and every tensor with all of its types.
Json allocation_json(const AdaptiveResult& result);

// "attn_v" of "blk.3.attn_v.weight"; the name without ".weight" for what is in no layer.
std::string matrix_kind(const std::string& tensor);

}  // namespace qkv
