// Whether what is asked for fits the memory that is left, before it is begun.
#pragma once

#include <cstdint>

#include "qkv/engine/engine.h"
#include "qkv/models/bundle.h"
#include "qkv/plan/serve_plan.h"

namespace qkv {

// For a model that is loaded and has not run.
ServeRequest serve_request(const Bundle& bundle, const EngineOptions& options, int64_t context,
                           int64_t parallel);
// Error with a sentence that names the longest context that would fit, unless one of `context` tokens does.
void require_memory(const Bundle& bundle, const EngineOptions& options, int64_t context);
// The longest context, up to `wanted`, that fits.
int64_t context_that_fits(const Bundle& bundle, const EngineOptions& options, int64_t wanted);

}  // namespace qkv
