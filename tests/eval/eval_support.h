// A small random model whose vocabulary is bytes: every text is its own tokens.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "qkv/models/bundle.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"
#include "qkv/tensor/autograd.h"
#include "tests/engine/engine_support.h"

namespace qkv::test {

inline Bundle byte_bundle(uint64_t seed = 7) {
  Bundle bundle;
  bundle.path = "(memory)";
  bundle.model = make_model(Json{{"model_type", "llama"},
                                 {"vocab_size", 257},
                                 {"hidden_size", 32},
                                 {"intermediate_size", 64},
                                 {"num_hidden_layers", 2},
                                 {"num_attention_heads", 4},
                                 {"num_key_value_heads", 2},
                                 {"max_position_embeddings", 64}},
                            "(memory)");
  initialize_weights(*bundle.model, seed, 0.4f);
  bundle.tokenizer = std::make_shared<ByteTokenizer>();
  return bundle;
}

// log p(tokens[t + 1] | tokens[0..t]) for every t, one sequence at a time, softmax in double.
inline std::vector<double> plain_log_probs(const Model& model, const std::vector<int32_t>& tokens) {
  const NoGrad off;
  const Tensor logits =
      model.logits(model.forward(tokens, Pass::whole({static_cast<int64_t>(tokens.size())})));
  std::vector<double> result;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    const float* row = logits.data<float>() + static_cast<int64_t>(t) * logits.cols();
    double sum = 0;
    for (int64_t v = 0; v < logits.cols(); ++v) sum += std::exp(static_cast<double>(row[v]));
    result.push_back(static_cast<double>(row[tokens[t + 1]]) - std::log(sum));
  }
  return result;
}

}  // namespace qkv::test
