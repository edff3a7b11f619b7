// Distillation: divergences between the next-token distributions of a student q and a teacher p, at a
// temperature t (Hinton et al., arXiv 1503.02531):
//   forward  KL(p || q)                                                   covers what the teacher may say
//   reverse  KL(q || p)                                                   avoids what it would not: MiniLLM
//   (Gu et al., arXiv 2306.08543) js       b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q between
//   both: GKD (Agarwal et al., arXiv 2306.13649)
// Times t^2, if asked, so that gradients keep their size over temperatures.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qkv::losses {

enum class DistillationKind { forward, reverse, js };

struct DistillationOptions {
  DistillationKind kind = DistillationKind::forward;
  double temperature = 1;
  double beta = 0.5;                  // js: b, between 0 and 1
  bool scale_by_temperature = false;  // times t^2
};

template <typename T>
struct DistillationLosses {
  std::vector<T> losses;    // (N)
  std::vector<T> gradient;  // (N, V): of the sum of the losses by the student's logits
};

// student, teacher: logits (N, V).
template <typename T>
DistillationLosses<T> distillation(std::span<const T> student, std::span<const T> teacher, int64_t vocabulary,
                                   const DistillationOptions& options);

}  // namespace qkv::losses
