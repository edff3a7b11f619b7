// What answering requests with a model takes, before it is done: memory from the formulas that the things
// themselves are made by, and the speed that the memory's bandwidth allows.
#pragma once

#include <cstdint>
#include <string>

#include "qkv/models/model.h"
#include "qkv/nn/state.h"

namespace qkv {

struct ServeRequest {
  int64_t context = 0;          // tokens of each sequence
  int64_t parallel = 1;         // sequences at the same time
  int64_t prefill_chunk = 512;  // prompt tokens of a pass at most
  CacheOptions cache;
  // Of this process, in which the model is loaded and has not run: all that is resident, and what of it are
  // tensors. Weights that are used where the file has them come into memory when they are first read.
  uint64_t resident = 0, tensors = 0;
};

struct ServePlan {
  uint64_t program = 0;  // the program, its vocabulary, and what loading has left
  uint64_t weights = 0;  // all parameters; `mapped` of them are read from the file's pages
  uint64_t mapped = 0;
  uint64_t cache = 0;            // of all sequences at their full length
  uint64_t cache_per_token = 0;  // 0: the state has a fixed size
  uint64_t scratch = 0;          // activations of the largest pass, logits, samplers
  uint64_t weights_read = 0;     // by every pass
  int64_t parallel = 1, context = 0;
  uint64_t total() const { return program + weights + cache + scratch; }

  // The most that reading weights and caches at `bandwidth` bytes per second allows, over `sequences` of
  // them with `depth` tokens each.
  double tokens_per_second(double bandwidth, int64_t depth, int64_t sequences) const;
};

ServePlan plan_serving(Model& model, const ServeRequest& request);
// "2 x 22 layers x 4 heads x 64 dimensions x 4 bytes = 45056 bytes per token", as far as that is how this
// model's cache is made.
std::string cache_formula(const Model& model, const CacheOptions& cache);
// Memory that a pass of `tokens` tokens takes beside weights and cache, and that is kept for the next one;
// `rows` of it get logits.
uint64_t pass_bytes(const Model& model, int64_t tokens, int64_t rows);
// The longest context for which plan_serving() stays within `bytes`; 0 if none does.
int64_t fitting_context(Model& model, ServeRequest request, uint64_t bytes);

}  // namespace qkv
