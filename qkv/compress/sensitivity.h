// What each type would cost each tensor of a model: how far the model's predictions move, as a KL divergence
// in nats a token, if that tensor alone is stored in that type.
//
// A changed matrix W + D changes the outputs of its layer by D x; with the gradients g of the model's
// log-likelihood at those outputs (gradient_walk.h) the divergence is, to second order, 1/2 E[(sum over
// tokens of g . D x)^2], in closed form for every D. Squares of single tokens are many and vary little, but
// leave out that the changes of the tokens of a sequence go together (a value that all tokens attend to);
// squares of sequences have that and are few. So the first are taken for every type and scaled by the ratio
// of the two, which is nearly the same for all types of a tensor, averaged over them. For the vocabulary head
// the divergence itself is measured, since only the head has to run.
//
// probe() measures the divergence of one type of a tensor by running the model from the changed layer on, and
// scales the tensor's other costs by what that gives.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "qkv/compress/layer_walk.h"
#include "qkv/compress/type_costs.h"
#include "qkv/models/decoder.h"

namespace qkv {

class Sensitivity {
 public:
  // `model` is the source's; it outlives this and is left as it was. Held is the residual stream of the
  // sequences.
  Sensitivity(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& quantize,
              Decoder& model, const TokenSequences& sequences, uint64_t seed = 0);
  ~Sensitivity();
  Sensitivity(const Sensitivity&) = delete;
  Sensitivity& operator=(const Sensitivity&) = delete;

  // Errors and costs of all types, once. What no traced layer reads (tensors that the model has for GGUF's
  // sake) gets the mean cost per error of the others.
  void measure(std::vector<TensorCosts>& costs, const CostProgress& progress = {});
  // Measures one type (its place in costs.types) over at most so many tokens, and corrects the costs. The
  // head has been measured already; nothing happens to it.
  void probe(TensorCosts& costs, size_t type, int64_t tokens);
  // Multiplications and additions that probing every tensor takes, about.
  double probe_operations(size_t tensors, int64_t tokens) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qkv
