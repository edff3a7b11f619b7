// Learning-rate schedules: a factor of the peak rate as a pure function of the step, as Hugging Face's get_scheduler defines
// them where it does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qkv {

struct ScheduleConfig {
  std::string kind = "cosine";  // one of schedule_kinds()
  int64_t warmup_steps = 0;     // linear from 0
  int64_t total_steps = 0;
  double min_ratio = 0.1;        // cosine, linear, polynomial, wsd: the factor at the end
  double decay_fraction = 0.2;   // wsd (Hu et al., arXiv 2404.06395): the part of all steps that decays, by a cosine
  double power = 2;              // polynomial
  int64_t cycles = 3;            // cosine-restarts (Loshchilov & Hutter, arXiv 1608.03983), each down to 0
};

std::vector<std::string> schedule_kinds();
// The factor for step `step` (0 is the first).
double schedule_factor(const ScheduleConfig& schedule, int64_t step);

}  // namespace qkv
