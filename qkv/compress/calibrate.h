// What a model's matrices are given to multiply, over a calibration text: the importances that quantizing
// weighs errors by.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "qkv/compress/importance.h"
#include "qkv/models/model.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct ImatrixOptions {
  int64_t context = 512;   // tokens per chunk; at most the model's positions
  int64_t max_chunks = 0;  // 0: all
  DType compute_type = DType::f32;
};

// Runs the text through the model in chunks that lie side by side, each beginning with BOS where the
// vocabulary adds one, as llama.cpp does, and sums the squares of the inputs of every linear layer, by GGUF's
// names of the tensors. The weights of the head and of the embedding are not among them. Error if the text is
// shorter than one chunk, or if GGUF knows none of the model's tensors. `dataset` is the text's name, kept in
// the result.
Importance collect_importance(Model& model, const Tokenizer& tokenizer, std::string_view text,
                              const std::string& dataset, const ImatrixOptions& options = {},
                              const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace qkv
