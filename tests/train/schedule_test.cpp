#include "qkv/train/schedule.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "qkv/core/json.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

// Values of Hugging Face's schedules: base rate 1e-3, 5 warmup steps, 30 in all; wsd: 10 of them decay to a tenth.
TEST(Schedule, MatchesTheReferenceValues) {
  const Json reference = load_json(test::golden("train/lr_schedules.json"));
  const double base = reference["base_lr"].get<double>();
  const std::pair<const char*, const char*> names[] = {
      {"linear", "linear"}, {"cosine", "cosine"}, {"constant", "constant_warmup"}, {"inverse-sqrt", "inverse_sqrt"}, {"wsd", "wsd"}};
  for (const auto& [kind, key] : names) {
    ScheduleConfig schedule;
    schedule.kind = kind;
    schedule.warmup_steps = 5;
    schedule.total_steps = 30;
    schedule.decay_fraction = 10.0 / 30.0;
    schedule.min_ratio = std::string(kind) == "wsd" ? 0.1 : 0.0;
    const auto values = reference["values"][key].get<std::vector<double>>();
    for (int64_t step = 0; step <= 30; ++step) {
      EXPECT_NEAR(base * schedule_factor(schedule, step), values[static_cast<size_t>(step)], 1e-12) << kind << " step " << step;
    }
  }
}

TEST(Schedule, StaysAtItsFloorAfterTheEnd) {
  for (const char* kind : {"cosine", "linear", "wsd"}) {
    ScheduleConfig schedule;
    schedule.kind = kind;
    schedule.total_steps = 10;
    schedule.min_ratio = 0.25;
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 10), 0.25) << kind;
    EXPECT_DOUBLE_EQ(schedule_factor(schedule, 99), 0.25) << kind;
  }
}

TEST(Schedule, NamesTheNearestKind) {
  ScheduleConfig schedule;
  schedule.kind = "cosin";
  schedule.total_steps = 10;
  EXPECT_NE(test::error_of([&] { schedule_factor(schedule, 5); }).find("did you mean 'cosine'?"), std::string::npos);
}

}  // namespace
}  // namespace qkv
