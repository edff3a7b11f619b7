// Frequencies of rotary positions and how context extensions change them.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/nn/rope.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

RopeConfig from_json(const Json& scaling, int64_t max_positions = 128) {
  RopeConfig rope;
  rope.head_dim = rope.rotary_dim = 8;
  rope.max_positions = max_positions;
  read_rope_scaling(JsonView({{"rope_scaling", scaling}}, "config.json"), rope);
  return rope;
}

double plain(size_t i) {
  return std::pow(10000.0, -2.0 * static_cast<double>(i) / 8);
}

TEST(Rope, LinearAndNtk) {
  const std::vector<float> linear = Rope(from_json({{"type", "linear"}, {"factor", 4.0}})).frequencies(0);
  const std::vector<float> ntk = Rope(from_json({{"rope_type", "ntk"}, {"factor", 4.0}})).frequencies(0);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(linear[i], plain(i) / 4, 1e-7 * plain(i));
  EXPECT_NEAR(ntk[0], 1, 1e-7);  // the fastest keeps its frequency, the slowest is interpolated
  EXPECT_NEAR(ntk[3], plain(3) / 4, 1e-7 * plain(3));
}

TEST(Rope, DynamicNtkFollowsEachSequencesOwnLength) {
  const Rope rope(from_json({{"rope_type", "dynamic"}, {"factor", 2.0}}, 16));
  std::vector<int32_t> positions;
  for (int32_t i = 0; i < 8; ++i) positions.push_back(i);
  for (int32_t i = 0; i < 40; ++i) positions.push_back(i);
  const ops::RopeTable both = rope.table(positions, {{0, 8, 48}});
  const ops::RopeTable alone = rope.table({positions.begin(), positions.begin() + 8}, {{0, 8}});
  for (int64_t i = 0; i < 8 * 4; ++i) EXPECT_EQ(both.cos.data<float>()[i], alone.cos.data<float>()[i]);
  // The base of 40 tokens: 10000 (2 * 40 / 16 - 1)^(8 / 6).
  const double theta = 10000 * std::pow(4.0, 8.0 / 6);
  EXPECT_NEAR(both.cos.data<float>()[(8 + 39) * 4 + 3], std::cos(39 * std::pow(theta, -0.75)), 1e-6);
  EXPECT_EQ(rope.frequencies(16), rope.frequencies(1));
}

TEST(Rope, YarnsTemperature) {
  EXPECT_NEAR(Rope(from_json({{"rope_type", "yarn"}, {"factor", 4.0}})).magnitude(0), 0.1 * std::log(4.0) + 1,
              1e-6);
  EXPECT_EQ(Rope(from_json({{"rope_type", "yarn"}, {"factor", 4.0}, {"attention_factor", 1.5}})).magnitude(0),
            1.5f);
  const Json equal = {{"rope_type", "yarn"}, {"factor", 40.0}, {"mscale", 0.707}, {"mscale_all_dim", 0.707}};
  EXPECT_EQ(Rope(from_json(equal)).magnitude(0), 1.0f);
  EXPECT_NEAR(yarn_mscale(40, 0.707), 0.1 * 0.707 * std::log(40.0) + 1, 1e-12);
}

TEST(Rope, LongRopeSwitchesByLength) {
  const RopeConfig config = from_json({{"rope_type", "longrope"},
                                       {"original_max_position_embeddings", 32},
                                       {"short_factor", {1.0, 1.0, 1.5, 2.0}},
                                       {"long_factor", {1.0, 2.0, 4.0, 8.0}}});
  const Rope rope(config);
  EXPECT_NEAR(rope.frequencies(32)[3], plain(3) / 2, 1e-7 * plain(3));
  EXPECT_NEAR(rope.frequencies(33)[3], plain(3) / 8, 1e-7 * plain(3));
  EXPECT_NEAR(rope.magnitude(1), std::sqrt(1 + std::log(4.0) / std::log(32.0)), 1e-6);
}

TEST(Rope, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(test::error_of([] {
              from_json({{"type", "mrope"}, {"mrope_section", {1, 1, 2}}});
            }),
            "config.json: key 'rope_scaling.rope_type': positions in several dimensions (mrope) are not "
            "implemented");
  EXPECT_EQ(test::error_of([] {
              from_json({{"rope_type", "spiral"}});
            }),
            "config.json: key 'rope_scaling.rope_type': expected default, linear, ntk, dynamic, yarn, llama3 "
            "or longrope, found "
            "'spiral'");
  EXPECT_THROW(from_json({{"rope_type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}}),
               Error);
}

}  // namespace
}  // namespace qkv
