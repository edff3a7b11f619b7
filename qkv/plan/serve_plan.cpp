#include "qkv/plan/serve_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "qkv/tensor/cached_attention.h"

namespace qkv {
namespace {

// Code that only a run touches, stacks of threads, buffers of libraries.
constexpr uint64_t kRunning = uint64_t{3} << 20;

// Bytes of a vector of activations rounded to bytes: codes, and four sums or scales (Int8Rows).
uint64_t rounded_bytes(uint64_t values) {
  return values + 4 * (2 * (values / 32) + 2 * (values / 16));
}

// The allocator keeps a block for the next tensor of its size: of every size there are as many as are ever in
// use at once. Small tensors do not matter.
class BlocksBySize {
 public:
  void at_once(uint64_t bytes, int64_t count) {
    if (bytes < kSmall) return;
    int64_t& most = blocks_[bytes];
    most = std::max(most, count);
  }
  uint64_t total() const {
    uint64_t sum = 0;
    for (const auto& [bytes, count] : blocks_) sum += bytes * static_cast<uint64_t>(count);
    return sum;
  }

 private:
  static constexpr uint64_t kSmall = uint64_t{1} << 16;
  std::map<uint64_t, int64_t> blocks_;
};

}  // namespace

uint64_t pass_bytes(const Model& model, int64_t tokens, int64_t rows) {
  const ModelInfo& info = model.info();
  const auto floats = [&](int64_t width) { return sizeof(float) * static_cast<uint64_t>(tokens * width); };
  const auto rounded = [&](int64_t width) { return rounded_bytes(static_cast<uint64_t>(tokens * width)); };
  const int64_t heads = info.heads * info.head_dim, kv_heads = info.kv_heads * info.head_dim;
  BlocksBySize blocks;
  // Of a block: its input, that normed, the mixer's result, the sum, that normed, the network's result.
  blocks.at_once(floats(info.channels), 6);
  if (heads != info.channels) blocks.at_once(floats(heads), 3);  // queries, those turned, the mixed values
  if (kv_heads != heads) blocks.at_once(floats(kv_heads), 3);    // keys, those turned, values
  blocks.at_once(floats(info.hidden), 3);                        // gate, up, their product
  blocks.at_once(rounded(info.channels), 1);
  blocks.at_once(rounded(info.hidden), 1);
  // Logits, and what samplers keep of them: a candidate is a token with two numbers.
  const auto vocabulary = static_cast<uint64_t>(info.vocabulary);
  return blocks.total() + static_cast<uint64_t>(rows) * vocabulary * (sizeof(float) + 3 * sizeof(float));
}

double ServePlan::tokens_per_second(double bandwidth, int64_t depth, int64_t sequences) const {
  const double cached = cache_per_token > 0
                            ? static_cast<double>(cache_per_token) * static_cast<double>(depth)
                            : static_cast<double>(cache) / static_cast<double>(parallel);
  const double pass = static_cast<double>(weights_read) + cached * static_cast<double>(sequences);
  return bandwidth * static_cast<double>(sequences) / pass;
}

ServePlan plan_serving(Model& model, const ServeRequest& request) {
  const ModelInfo& info = model.info();
  ServePlan plan;
  plan.parallel = request.parallel;
  plan.context = request.context;
  model.visit("", [&](const std::string& parameter, Tensor& tensor) {
    plan.weights += tensor.bytes();
    // Of an embedding that is not also the head a pass reads rows.
    if (parameter != "embed.weight" || info.tied_embeddings) plan.weights_read += tensor.bytes();
  });
  plan.mapped = plan.weights - std::min(plan.weights, request.tensors);
  plan.program = kRunning + request.resident - std::min(request.resident, request.tensors);
  const auto state = [&](int64_t tokens) {
    return model.state_bytes(request.cache, tokens, request.prefill_chunk);
  };
  plan.cache = static_cast<uint64_t>(request.parallel) * state(request.context);
  const int64_t page = request.cache.page_tokens;
  plan.cache_per_token = (state(2 * page) - state(page)) / static_cast<uint64_t>(page);
  const int64_t pass = std::min(std::max(request.prefill_chunk, request.parallel),
                                std::max<int64_t>(1, request.context) * request.parallel);
  plan.scratch = pass_bytes(model, pass, request.parallel);
  return plan;
}

std::string cache_formula(const Model& model, const CacheOptions& cache) {
  const ModelInfo& info = model.info();
  const int64_t page = cache.page_tokens;
  const auto per_token =
      static_cast<int64_t>((model.state_bytes(cache, 2 * page, page) - model.state_bytes(cache, page, page)) /
                           static_cast<uint64_t>(page));
  if (per_token == 0) {
    return fmt::format("{} bytes per sequence, however long", model.state_bytes(cache, page, page));
  }
  const CacheLayout layout{info.kv_heads, info.head_dim, info.head_dim, cache.k_type, cache.v_type, page};
  if (info.layers * layout.bytes_per_token() != per_token)
    return fmt::format("{} bytes per token", per_token);
  const auto bytes = [&](int64_t row) {
    return static_cast<double>(row) / static_cast<double>(info.head_dim);
  };
  const double k = bytes(layout.k_row_bytes()), v = bytes(layout.v_row_bytes());
  const std::string shape =
      fmt::format("{} layers x {} heads x {} dimensions", info.layers, info.kv_heads, info.head_dim);
  if (k == v) return fmt::format("2 x {} x {} bytes = {} bytes per token", shape, k, per_token);
  return fmt::format("{} x ({} + {} bytes) = {} bytes per token", shape, k, v, per_token);
}

int64_t fitting_context(Model& model, ServeRequest request, uint64_t bytes) {
  int64_t fits = 0, too_long = model.info().max_positions + 1;
  while (fits + 1 < too_long) {
    request.context = fits + (too_long - fits) / 2;
    (plan_serving(model, request).total() <= bytes ? fits : too_long) = request.context;
  }
  return fits;
}

}  // namespace qkv
