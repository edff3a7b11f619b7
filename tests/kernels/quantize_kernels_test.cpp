// The kernels of the quantizing searches: every instruction set against the scalar one, bit for bit, and the
// scalar one against plain double-precision code.
#include "qkv/kernels/quantize_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/kernels/block_codebooks.h"

namespace qkv::test {
namespace {

constexpr Levels kInteger = {Levels::Kind::linear, -8, 7};
constexpr Levels kIq4 = {Levels::Kind::iq4, 0, 0};
constexpr Levels kMxfp4 = {Levels::Kind::mxfp4, 0, 0};

struct Groups {
  int n;
  std::vector<float> x, w;
};

// Lane 0 is all zero, lane 1 constant, lane 2 tiny, lane 3 large, lane 4 of one sign; the others normal.
Groups make_groups(int n) {
  Groups groups{n, {}, {}};
  Rng rng(3, static_cast<uint64_t>(n));
  for (int i = 0; i < n; ++i) {
    for (int g = 0; g < kGroupLanes; ++g) {
      float v = rng.normal();
      if (g == 0) v = 0;
      if (g == 1) v = 0.75f;
      if (g == 2) v *= 1e-30f;
      if (g == 3) v *= 1e4f;
      if (g == 4) v = std::abs(v) + 1;
      groups.x.push_back(v);
      groups.w.push_back(std::exp(rng.normal()));
    }
  }
  return groups;
}

struct Results {
  std::vector<float> floats;
  std::vector<int32_t> ints;
  std::vector<int8_t> codes;
  bool operator==(const Results& other) const {
    return ints == other.ints && codes == other.codes && floats.size() == other.floats.size() &&
           std::memcmp(floats.data(), other.floats.data(), floats.size() * sizeof(float)) == 0;
  }
};

// Everything that the kernels of a set make of the groups.
Results run_all(const QuantizeKernels& k, const Groups& groups) {
  Results results;
  const auto keep = [&](const auto& values) {
    results.floats.insert(results.floats.end(), values.begin(), values.end());
  };
  const size_t count = static_cast<size_t>(groups.n) * kGroupLanes;
  std::vector<float> scale(3 * kGroupLanes), offset(3 * kGroupLanes), error(kGroupLanes);
  std::vector<int32_t> best(kGroupLanes);
  std::vector<int8_t> codes(count);
  GroupSums sums;
  const auto keep_codes = [&] {
    results.codes.insert(results.codes.end(), codes.begin(), codes.end());
    for (const float* field : {sums.xl, sums.ll, sums.l, sums.x, sums.one}) {
      results.floats.insert(results.floats.end(), field, field + kGroupLanes);
    }
  };
  for (const float* w : {static_cast<const float*>(nullptr), groups.w.data()}) {
    for (const bool negative : {false, true}) {
      k.fit_affine(groups.x.data(), w, groups.n, 15, negative, {-0.9f, 0.3f, 7}, scale.data(), offset.data());
      k.nearest_f16(scale.data(), scale.data());
      std::copy_n(offset.begin(), kGroupLanes, offset.begin() + kGroupLanes);
      std::copy_n(offset.begin(), kGroupLanes, offset.begin() + 2 * kGroupLanes);
      keep(scale);
      keep(offset);
      k.pick_affine(groups.x.data(), w, groups.n, 15, 3, scale.data(), offset.data(), best.data(),
                    error.data());
      results.ints.insert(results.ints.end(), best.begin(), best.end());
      keep(error);
      k.encode_affine(groups.x.data(), w, groups.n, 15, scale.data(), offset.data(), codes.data(), &sums);
      keep_codes();
    }
    for (const Levels levels : {kInteger, kIq4, kMxfp4}) {
      k.fit_scale(groups.x.data(), w, groups.n, levels, {-0.9f, 0.3f, 7}, scale.data());
      keep(scale);
      k.nearest_f16(scale.data(), scale.data());
      k.pick_scale(groups.x.data(), w, groups.n, levels, 3, scale.data(), best.data(), error.data());
      results.ints.insert(results.ints.end(), best.begin(), best.end());
      keep(error);
      k.encode_scale(groups.x.data(), w, groups.n, levels, scale.data(), codes.data(), &sums);
      keep_codes();
    }
  }
  return results;
}

TEST(QuantizeKernels, AllInstructionSetsGiveTheSameBits) {
  for (const int n : {16, 32, 256}) {
    const Groups groups = make_groups(n);
    const Results expected = run_all(quantize_kernels_for(Isa::scalar), groups);
    for (const Isa isa : available_isas()) {
      EXPECT_TRUE(run_all(quantize_kernels_for(isa), groups) == expected) << isa_name(isa) << " " << n;
    }
  }
}

TEST(QuantizeKernels, NearestF16AndItsNeighbours) {
  std::vector<float> wanted = {0.0f, -0.0f,  1.0f,     1.0004f,    -3.14159f, 65504.0f,
                               1e9f, -1e30f, 0x1p-14f, 0x1.8p-24f, 0x1p-25f,  0x1p-30f};
  Rng rng(5);
  while (wanted.size() < kGroupLanes) wanted.push_back(std::exp(6 * rng.normal()) * rng.normal());
  for (const Isa isa : available_isas()) {
    std::vector<float> found(3 * kGroupLanes);
    quantize_kernels_for(isa).nearest_f16(wanted.data(), found.data());
    for (size_t i = 0; i < kGroupLanes; ++i) {
      const float clamped = std::max(-65504.0f, std::min(65504.0f, wanted[i]));
      const f16 nearest = to_f16(clamped);
      EXPECT_EQ(found[i], to_float(nearest)) << wanted[i];
      EXPECT_FALSE(std::signbit(found[i]) && found[i] == 0) << wanted[i];
      const uint16_t magnitude = nearest.bits & 0x7FFF, sign = std::signbit(wanted[i]) ? 0x8000 : 0;
      const uint16_t beyond = std::min<uint16_t>(0x7BFF, static_cast<uint16_t>(magnitude + 1));
      const uint16_t before = magnitude == 0 ? 0 : static_cast<uint16_t>(magnitude - 1);
      EXPECT_EQ(found[kGroupLanes + i], to_float(f16{static_cast<uint16_t>(sign | beyond)})) << wanted[i];
      EXPECT_EQ(found[2 * kGroupLanes + i], to_float(f16{static_cast<uint16_t>(sign | before)})) << wanted[i];
    }
  }
}

// The level nearest to v, the lower of two.
double nearest_level(const Levels& levels, double v) {
  std::vector<double> all;
  if (levels.kind == Levels::Kind::linear) {
    for (int l = levels.least; l <= levels.most; ++l) all.push_back(l);
  } else if (levels.kind == Levels::Kind::iq4) {
    all.assign(kIq4Values.begin(), kIq4Values.end());
  } else {
    all.assign(kMxfp4Values.begin(), kMxfp4Values.end());
  }
  double best = all[0];
  for (const double level : all) {
    if (std::abs(level - v) < std::abs(best - v)) best = level;
  }
  return best;
}

TEST(QuantizeKernels, CodesAreTheNearestLevels) {
  const int n = 32;
  const Groups groups = make_groups(n);
  const QuantizeKernels& k = quantize_kernels();
  for (const Levels levels : {kInteger, kIq4, kMxfp4}) {
    std::vector<float> scale(kGroupLanes, 0.25f);
    std::vector<int8_t> codes(static_cast<size_t>(n) * kGroupLanes);
    GroupSums sums;
    k.encode_scale(groups.x.data(), groups.w.data(), n, levels, scale.data(), codes.data(), &sums);
    for (size_t i = 0; i < codes.size(); ++i) {
      const double v = static_cast<double>(groups.x[i]) / 0.25;
      const double expected = nearest_level(levels, v);
      // Between two levels either is right.
      EXPECT_NEAR(std::abs(codes[i] - v), std::abs(expected - v), 1e-5 * std::abs(v)) << i;
    }
  }
}

// The gain of a fit is that of its best candidate: no worse than any of them by itself, in double precision.
TEST(QuantizeKernels, FitsAreTheBestOfTheirCandidates) {
  const int n = 32;
  const Groups groups = make_groups(n);
  std::vector<float> scale(kGroupLanes);
  const SearchSteps steps = {-0.9f, 0.3f, 7};
  quantize_kernels().fit_scale(groups.x.data(), groups.w.data(), n, kInteger, steps, scale.data());
  for (size_t g = 5; g < kGroupLanes; ++g) {
    const auto at = [&](int i) { return static_cast<size_t>(i) * kGroupLanes + g; };
    double extreme = 0;
    for (int i = 0; i < n; ++i) {
      if (std::abs(static_cast<double>(groups.x[at(i)])) > std::abs(extreme))
        extreme = static_cast<double>(groups.x[at(i)]);
    }
    const auto error_at = [&](double s) {
      double sum = 0;
      for (int i = 0; i < n; ++i) {
        const double x = static_cast<double>(groups.x[at(i)]), d = x - s * nearest_level(kInteger, x / s);
        sum += static_cast<double>(groups.w[at(i)]) * d * d;
      }
      return sum;
    };
    const double found = error_at(static_cast<double>(scale[g]));
    for (int step = 0; step < steps.count; ++step) {
      const double s =
          extreme / static_cast<double>(-8 - steps.first - static_cast<float>(step) * steps.step);
      EXPECT_LE(found, error_at(s) * (1 + 1e-4)) << g << " " << step;
    }
  }
}

TEST(QuantizeKernels, CodebookSearchesAreExact) {
  constexpr int dims = 8, entries = 64;
  Rng rng(8);
  std::vector<float> grid, squares, wx, w;
  for (int i = 0; i < dims * entries; ++i) {
    grid.push_back(std::round(3 * rng.normal()));
    squares.push_back(grid.back() * grid.back());
  }
  for (int i = 0; i < dims; ++i) {
    w.push_back(std::exp(rng.normal()));
    wx.push_back(w.back() * rng.normal());
  }
  std::vector<float> products(entries), norms(entries), expected_products(entries), expected_norms(entries);
  const QuantizeKernels& scalar = quantize_kernels_for(Isa::scalar);
  scalar.grid_products(wx.data(), w.data(), grid.data(), squares.data(), dims, entries,
                       expected_products.data(), expected_norms.data());
  for (size_t e = 0; e < entries; ++e) {
    double product = 0, norm = 0;
    for (size_t i = 0; i < dims; ++i) {
      const size_t at = (e / kGroupLanes * dims + i) * kGroupLanes + e % kGroupLanes;
      product += static_cast<double>(wx[i]) * static_cast<double>(grid[at]);
      norm += static_cast<double>(w[i]) * static_cast<double>(squares[at]);
    }
    EXPECT_NEAR(expected_products[e], product, 1e-4);
    EXPECT_NEAR(expected_norms[e], norm, 1e-4);
  }
  for (const Isa isa : available_isas()) {
    const QuantizeKernels& k = quantize_kernels_for(isa);
    k.grid_products(wx.data(), w.data(), grid.data(), squares.data(), dims, entries, products.data(),
                    norms.data());
    EXPECT_EQ(products, expected_products);
    EXPECT_EQ(norms, expected_norms);
    for (const float scale : {0.1f, 0.5f, 2.0f}) {
      const auto best = static_cast<size_t>(k.grid_best(products.data(), norms.data(), entries, scale));
      const auto gain_of = [&](size_t e) { return 2.0f * products[e] - scale * norms[e]; };
      for (size_t e = 0; e < entries; ++e) {
        EXPECT_LE(gain_of(e), gain_of(best));
        if (e < best) {
          EXPECT_LT(gain_of(e), gain_of(best)) << "not the first";
        }
      }
    }
  }
}

}  // namespace
}  // namespace qkv::test
