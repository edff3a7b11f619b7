// What quantizing writes, as text and as JSON.
#pragma once

#include "qkv/compress/quantize.h"
#include "qkv/core/json.h"

namespace qkv {

// Notes on standard error, a table of types on standard output.
void print_plan(const QuantizePlan& plan);
Json plan_json(const std::string& output, const QuantizePlan& plan);

}  // namespace qkv
