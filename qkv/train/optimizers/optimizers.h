// The optimizers, by the files that hold them; make_optimizer() finds them by name.
#pragma once

#include "qkv/core/parallel.h"
#include "qkv/train/optimizer.h"

namespace qkv::optimizers {

std::unique_ptr<Optimizer> make_adamw(Module& module, const OptimizerConfig& config);    // adam.cpp
std::unique_ptr<Optimizer> make_adam(Module& module, const OptimizerConfig& config);     // adam.cpp
std::unique_ptr<Optimizer> make_amsgrad(Module& module, const OptimizerConfig& config);  // adam.cpp
std::unique_ptr<Optimizer> make_adamax(Module& module, const OptimizerConfig& config);   // adam.cpp
std::unique_ptr<Optimizer> make_nadam(Module& module, const OptimizerConfig& config);    // adam.cpp
std::unique_ptr<Optimizer> make_radam(Module& module, const OptimizerConfig& config);    // adam.cpp
std::unique_ptr<Optimizer> make_sgd(Module& module, const OptimizerConfig& config);  // gradient_descent.cpp
std::unique_ptr<Optimizer> make_nesterov(Module& module,
                                         const OptimizerConfig& config);  // gradient_descent.cpp
std::unique_ptr<Optimizer> make_rmsprop(Module& module,
                                        const OptimizerConfig& config);  // gradient_descent.cpp
std::unique_ptr<Optimizer> make_adagrad(Module& module,
                                        const OptimizerConfig& config);               // gradient_descent.cpp
std::unique_ptr<Optimizer> make_lion(Module& module, const OptimizerConfig& config);  // lion.cpp
std::unique_ptr<Optimizer> make_adafactor(Module& module, const OptimizerConfig& config);   // adafactor.cpp
std::unique_ptr<Optimizer> make_muon(Module& module, const OptimizerConfig& config);        // muon.cpp
std::unique_ptr<Optimizer> make_adamw_8bit(Module& module, const OptimizerConfig& config);  // adamw_8bit.cpp
std::unique_ptr<Optimizer> make_galore(Module& module, const OptimizerConfig& config);      // galore.cpp
std::unique_ptr<Optimizer> make_schedule_free(Module& module,
                                              const OptimizerConfig& config);  // schedule_free.cpp

// Runs body(i) for every element; what body does to one may depend on nothing of another.
template <typename Body>
void for_elements(int64_t n, Body&& body) {
  parallel_for(n, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace qkv::optimizers
