#include "qkv/train/schedule.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/core/json.h"

namespace qkv {
namespace {

// From 1 at progress 0 to `floor` at progress 1 and after.
double cosine_between(double floor, double progress) {
  return floor + (1 - floor) * 0.5 * (1 + std::cos(3.14159265358979323846 * std::min(1.0, progress)));
}

}  // namespace

std::vector<std::string> schedule_kinds() { return {"cosine", "linear", "constant", "wsd", "inverse-sqrt", "polynomial", "cosine-restarts"}; }

double schedule_factor(const ScheduleConfig& schedule, int64_t step) {
  const double now = static_cast<double>(step), warmup = static_cast<double>(schedule.warmup_steps);
  const double total = static_cast<double>(schedule.total_steps);
  if (step < schedule.warmup_steps) return now / std::max(1.0, warmup);
  const double floor = schedule.min_ratio;
  if (schedule.kind == "constant") return 1;
  if (schedule.kind == "inverse-sqrt") {
    const double timescale = warmup > 0 ? warmup : 10000;  // Hugging Face's default
    const double shift = timescale - warmup;
    return 1 / std::sqrt((now + shift) / timescale);
  }
  if (schedule.kind == "wsd") {
    const double decay = std::max(1.0, std::round(total * schedule.decay_fraction));
    const double begin = total - decay;
    if (now < begin) return 1;
    return cosine_between(floor, (now - begin) / decay);
  }
  const double progress = std::clamp((now - warmup) / std::max(1.0, total - warmup), 0.0, 1.0);
  if (schedule.kind == "polynomial") return floor + (1 - floor) * std::pow(1 - progress, schedule.power);
  if (schedule.kind == "cosine-restarts") {
    if (progress >= 1) return 0;
    return cosine_between(0, std::fmod(static_cast<double>(schedule.cycles) * progress, 1.0));
  }
  if (schedule.kind == "linear") return 1 - (1 - floor) * progress;
  if (schedule.kind == "cosine") return cosine_between(floor, progress);
  fail("schedule: expected one of {}, found '{}'{}", fmt::join(schedule_kinds(), ", "), schedule.kind,
       suggestion(schedule.kind, schedule_kinds()));
}

}  // namespace qkv
