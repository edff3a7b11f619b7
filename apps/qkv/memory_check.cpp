#include "memory_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/tensor/allocator.h"
#include "system_probe.h"

namespace qkv {
namespace {

// What a plan's total may be: what is available, and what this process has of it already.
uint64_t memory_for(const ServeRequest& request) {
  const SystemMemory memory = system_memory();
  return memory.total == 0 ? UINT64_MAX : memory.available + request.resident;
}

}  // namespace

ServeRequest serve_request(const Bundle& bundle, const EngineOptions& options, int64_t context,
                           int64_t parallel) {
  ServeRequest request;
  request.context = context;
  request.parallel = parallel;
  request.prefill_chunk = options.prefill_chunk;
  request.cache = options.cache;
  request.resident = resident_bytes_beside(bundle.path);
  request.tensors = memory_use().current;
  return request;
}

void require_memory(const Bundle& bundle, const EngineOptions& options, int64_t context) {
  const ServeRequest request = serve_request(bundle, options, context, 1);
  const ServePlan plan = plan_serving(*bundle.model, request);
  const uint64_t memory = memory_for(request);
  if (plan.total() <= memory) return;
  const int64_t fits = fitting_context(*bundle.model, request, memory);
  fail("context: {} tokens need {} of memory (weights {}, cache {}, passes {}), and there are {}; {}",
       context, format_bytes(plan.total()), format_bytes(plan.weights), format_bytes(plan.cache),
       format_bytes(plan.scratch), format_bytes(memory),
       fits > 0 ? fmt::format("{} tokens would fit (--context, --cache-type-k, --cache-type-v)", fits)
                : std::string("the model alone does not fit"));
}

int64_t context_that_fits(const Bundle& bundle, const EngineOptions& options, int64_t wanted) {
  const ServeRequest request = serve_request(bundle, options, wanted, 1);
  const uint64_t memory = memory_for(request);
  if (plan_serving(*bundle.model, request).total() <= memory) return wanted;
  return std::min(wanted, fitting_context(*bundle.model, request, memory));
}

}  // namespace qkv
