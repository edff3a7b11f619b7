#include "qkv/train/schedule.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "qkv/core/json.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

// Values of Hugging Face's schedules: base rate 1e-3, 5 warmup steps, 30 in all; wsd: 10 of them decay to a
// tenth; polynomial: to a hundredth with power 2; three restarts.
TEST(Schedule, MatchesTheReferenceValues) {
  const Json reference = load_json(test::golden("train/lr_schedules.json"));
  const double base = reference["base_lr"].get<double>();
  struct Case {
    const char *kind, *key;
    double floor;
  };
  const Case cases[] = {{"linear", "linear", 0},
                        {"cosine", "cosine", 0},
                        {"cosine", "cosine_min_lr", 0.1},
                        {"constant", "constant_warmup", 0},
                        {"inverse-sqrt", "inverse_sqrt", 0},
                        {"wsd", "wsd", 0.1},
                        {"polynomial", "polynomial", 0.01},
                        {"cosine-restarts", "cosine_restarts", 0}};
  for (const auto& [kind, key, floor] : cases) {
    ScheduleConfig schedule;
    schedule.kind = kind;
    schedule.warmup_steps = 5;
    schedule.total_steps = 30;
    schedule.decay_fraction = 10.0 / 30.0;
    schedule.min_ratio = floor;
    const auto values = reference["values"][key].get<std::vector<double>>();
    for (int64_t step = 0; step <= 30; ++step) {
      EXPECT_NEAR(base * schedule_factor(schedule, step), values[static_cast<size_t>(step)], 1e-12)
          << key << " step " << step;
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
  EXPECT_NE(test::error_of([&] { schedule_factor(schedule, 5); }).find("did you mean 'cosine'?"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv
