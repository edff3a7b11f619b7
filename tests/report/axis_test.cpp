#include "qkv/report/axis.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qkv/core/rng.h"

namespace qkv {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::Pointwise;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Ticks, LinearAreRoundAndExact) {
  EXPECT_THAT(linear_ticks(0, 1, 5), ElementsAre(0, 0.2, 0.4, 0.6, 0.8, 1));
  EXPECT_THAT(linear_ticks(2.1, 11.9, 5), ElementsAre(4, 6, 8, 10));
  EXPECT_THAT(linear_ticks(-3, 3, 6), ElementsAre(-3, -2, -1, 0, 1, 2, 3));
  EXPECT_THAT(linear_ticks(0, 4000, 8), ElementsAre(0, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000));
}

TEST(Ticks, RangesWithoutTicksGiveNone) {
  EXPECT_TRUE(linear_ticks(1, 1, 5).empty());
  EXPECT_TRUE(linear_ticks(2, 1, 5).empty());
  EXPECT_TRUE(linear_ticks(kNan, 1, 5).empty());
  EXPECT_TRUE(linear_ticks(0, kInfinity, 5).empty());
  EXPECT_TRUE(linear_ticks(1, 1 + 1e-15, 5).empty());
  EXPECT_TRUE(log_ticks(0, 1, 5).empty());
}

// Any range a run can produce: a handful of ascending multiples of 1, 2 or 5 times a power of ten, inside the
// range.
TEST(Ticks, EveryRangeGetsAHandful) {
  Rng rng(11);
  for (int i = 0; i < 5000; ++i) {
    const double low = rng.normal() * std::pow(10, rng.normal() * 6);
    const double high = low + std::abs(low) * std::pow(10, rng.normal() * 2);
    if (!(high - low > 1e-9 * std::abs(low))) continue;
    const auto ticks = linear_ticks(low, high, 6);
    ASSERT_GE(ticks.size(), 2u) << low << " " << high;
    ASSERT_LE(ticks.size(), 12u) << low << " " << high;
    ASSERT_TRUE(std::is_sorted(ticks.begin(), ticks.end()));
    const double slack = (high - low) * 1e-6, step = ticks[1] - ticks[0];
    ASSERT_GE(ticks.front(), low - slack);
    ASSERT_LE(ticks.back(), high + slack);
    const double lead = step / std::pow(10, std::floor(std::log10(step) + 1e-6));
    ASSERT_TRUE(std::abs(lead - 1) < 1e-3 || std::abs(lead - 2) < 1e-3 || std::abs(lead - 5) < 1e-3) << step;
    const auto labels = tick_labels(ticks, false);
    ASSERT_EQ(labels.size(), ticks.size());
    for (size_t t = 1; t < labels.size(); ++t) ASSERT_NE(labels[t], labels[t - 1]) << low << " " << high;
  }
}

TEST(Ticks, LogarithmicAreDecades) {
  EXPECT_THAT(log_ticks(1e-3, 1e3, 8), Pointwise(DoubleEq(), {1e-3, 1e-2, 1e-1, 1., 10., 100., 1000.}));
  EXPECT_THAT(log_ticks(1, 100, 5), ElementsAre(1, 2, 5, 10, 20, 50, 100));
  EXPECT_THAT(log_ticks(3, 4, 5), ElementsAre(3, 3.2, 3.4, 3.6, 3.8, 4));
  EXPECT_LE(log_ticks(1e-200, 1e200, 6).size(), 8u);
  EXPECT_GE(log_ticks(1e-200, 1e200, 6).size(), 3u);
}

TEST(Ticks, LabelsShareDecimalsAndSuffix) {
  EXPECT_THAT(tick_labels({0, 0.5, 1}, false), ElementsAre("0.0", "0.5", "1.0"));
  EXPECT_THAT(tick_labels({0, 1000, 2000}, false), ElementsAre("0", "1,000", "2,000"));
  EXPECT_THAT(tick_labels({0, 5000, 10000}, false), ElementsAre("0", "5k", "10k"));
  EXPECT_THAT(tick_labels({0, 2.5e6, 5e6}, false), ElementsAre("0", "2.5M", "5.0M"));
  EXPECT_THAT(tick_labels({0, 1e-4, 2e-4}, false), ElementsAre("0", "1e-4", "2e-4"));
  EXPECT_THAT(tick_labels({5e-4, 1e-3, 1.5e-3}, false), ElementsAre("5e-4", "1.0e-3", "1.5e-3"));
  EXPECT_THAT(tick_labels({-1, 0, 1}, false), ElementsAre("\u22121", "0", "1"));
  EXPECT_THAT(tick_labels({1e-5, 1e-2, 10, 1e4}, true), ElementsAre("1e-5", "0.01", "10", "10k"));
}

TEST(Scale, MapsEndsAndMiddle) {
  const std::vector<double> values = {1, 100};
  const Scale linear({&values}, {}, 0, 10, 5, false);
  EXPECT_DOUBLE_EQ(linear(1), 0);
  EXPECT_DOUBLE_EQ(linear(100), 10);
  const Scale log({&values}, {.log = true}, 0, 10, 5, false);
  EXPECT_DOUBLE_EQ(log(10), 5);
}

TEST(Scale, RoundedEndsAreTicks) {
  Rng rng(5);
  for (int i = 0; i < 2000; ++i) {
    const std::vector<double> values = {rng.normal() * 10, rng.normal() * std::pow(10, rng.normal())};
    const Scale scale({&values}, {}, 0, 1, 5, true);
    ASSERT_NEAR(scale(scale.ticks().front()), 0, 1e-6);
    ASSERT_NEAR(scale(scale.ticks().back()), 1, 1e-6);
  }
}

TEST(Scale, OddDataStillHasARange) {
  for (const std::vector<double>& values : {std::vector<double>{},
                                            {kNan},
                                            {kInfinity, -kInfinity},
                                            {3.5},
                                            {0, 0},
                                            {-2, -2},
                                            {1e300, -1e300},
                                            {1e308},
                                            {5e-324},
                                            {0, 5e-324},
                                            {1e-300, 2e-300},
                                            {-1, 0}}) {
    for (const bool log : {false, true}) {
      for (const bool round_out : {false, true}) {
        const Scale scale({&values}, {.log = log}, 0, 100, 5, round_out);
        ASSERT_TRUE(std::isfinite(scale.min()) && std::isfinite(scale.max()));
        ASSERT_LT(scale.min(), scale.max());
        for (const double value : values) {
          if (!drawable(value, scale.log())) continue;
          ASSERT_GE(scale(value), -1e-6) << value;
          ASSERT_LE(scale(value), 100 + 1e-6) << value;
        }
      }
    }
  }
}

TEST(Decimate, ShortSeriesStayAsTheyAre) {
  const Points points = decimate({1, 2, 3}, {5, kNan, 7}, 8, false, false);
  EXPECT_THAT(points.x, ElementsAre(1, 2, 3));
  EXPECT_TRUE(std::isnan(points.y[1]));
}

TEST(Decimate, KeepsEndsExtremesAndGaps) {
  std::vector<double> x, y;
  Rng rng(3);
  for (int i = 0; i < 100000; ++i) {
    x.push_back(i + 1);
    y.push_back(rng.normal());
  }
  y[31337] = 50;
  y[31338] = -60;
  for (int i = 70000; i < 70900; ++i) y[static_cast<size_t>(i)] = kNan;
  for (const bool log_x : {false, true}) {
    const Points points = decimate(x, y, 1500, log_x, false);
    EXPECT_LE(points.x.size(), 1500u);
    EXPECT_GE(points.x.size(), 700u);
    EXPECT_TRUE(std::is_sorted(points.x.begin(), points.x.end()));
    EXPECT_EQ(points.x.front(), 1);
    EXPECT_EQ(points.x.back(), 100000);
    EXPECT_THAT(points.y, testing::Contains(50));
    EXPECT_THAT(points.y, testing::Contains(-60));
    EXPECT_TRUE(std::any_of(points.y.begin(), points.y.end(), [](double v) { return std::isnan(v); }));
    for (size_t i = 0; i < points.x.size(); ++i) {  // every kept point is a point of the series
      const double original = y[static_cast<size_t>(points.x[i]) - 1];
      ASSERT_TRUE(original == points.y[i] || (std::isnan(original) && std::isnan(points.y[i])));
    }
  }
}

TEST(Decimate, XThatRunsBackwardsKeepsItsOrder) {
  std::vector<double> x, y;
  for (int i = 0; i < 20000; ++i) {
    x.push_back(i % 5000);
    y.push_back(i == 12345 ? 99 : 1);
  }
  const Points points = decimate(x, y, 100, false, false);
  EXPECT_LE(points.x.size(), 100u);
  EXPECT_THAT(points.y, testing::Contains(99));
}

}  // namespace
}  // namespace qkv
