// What preference and policy recipes ask of a model: the log-probabilities of answers, by the policy that is
// trained and by the reference it is held to. With an adapter the reference is the model without it: no
// second copy.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/data/batches.h"
#include "qkv/models/adapter.h"
#include "qkv/models/model.h"

namespace qkv {

// The adapter has no effect while this lives; it may be null. What is computed meanwhile is the reference's.
class ReferenceMode {
 public:
  explicit ReferenceMode(Adapter* adapter);
  ~ReferenceMode();
  ReferenceMode(const ReferenceMode&) = delete;
  ReferenceMode& operator=(const ReferenceMode&) = delete;

 private:
  Adapter* adapter_;
};

// The rows of a batch whose next token counts, packed: all that a vocabulary head need be asked about.
struct CountedRows {
  std::vector<int64_t> rows;     // of the batch
  std::vector<int32_t> targets;  // of each
  std::vector<int64_t> offsets;  // row i of sequence s: offsets[s] <= i < offsets[s + 1]
};
CountedRows counted_rows(const std::vector<int32_t>& targets, const ops::PackedSequences& sequences);
// hidden (T, C) -> (rows, C); hidden itself if all of it counts.
Tensor take_rows(const Tensor& hidden, const CountedRows& counted);

// One number per counted token, sequences one after the other: what losses on tokens take.
struct TokenLogProbs {
  Tensor values;                 // (N) f32, on the tape unless it is off
  std::vector<int64_t> offsets;  // of every sequence's tokens among them
};
TokenLogProbs token_log_probs(const Model& model, const std::vector<int32_t>& tokens,
                              const std::vector<int32_t>& targets, const Pass& pass);

// (S) f32: of every sequence's counted tokens the sum, or with `averages` the mean; error if a sequence then
// has none.
Tensor answer_log_probs(const Model& model, const Batch& batch, const Pass& pass, bool averages = false);

// The same by the reference, off the tape.
std::vector<float> reference_log_probs(const Model& model, Adapter* adapter, const Batch& batch,
                                       DType compute_type, bool averages = false);

// Lists of numbers out of a checkpoint's state (the reference's, taken before the run was stopped), each as
// long as it is now. Error naming the key otherwise.
void restore_numbers(const JsonView& view,
                     const std::vector<std::pair<std::string, std::vector<float>*>>& lists);

}  // namespace qkv
