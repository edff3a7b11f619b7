// What holds for losses that no reference gives: gradients equal central differences, extreme probabilities
// stay finite, wrong settings are refused with a sentence.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "qkv/train/losses/distillation.h"
#include "qkv/train/losses/dpo.h"
#include "qkv/train/losses/grpo.h"
#include "qkv/train/losses/monolithic.h"
#include "qkv/train/losses/policy.h"
#include "qkv/train/losses/reward_model.h"
#include "tests/support/test_paths.h"

namespace qkv::losses {
namespace {

using Doubles = std::vector<double>;

// Central differences in double: with step e the error is of the order e^2 + 1e-16 / e, so 1e-5 gives 1e-9.
void expect_gradient(const std::function<double(const Doubles&)>& value, const Doubles& at,
                     const Doubles& gradient) {
  for (size_t i = 0; i < at.size(); ++i) {
    Doubles up = at, down = at;
    up[i] += 1e-5;
    down[i] -= 1e-5;
    EXPECT_NEAR((value(up) - value(down)) / 2e-5, gradient[i], 1e-8 * std::max(1.0, std::abs(gradient[i])))
        << i;
  }
}

double total(const Doubles& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum;
}

TEST(LossGradients, DistillationByDifferences) {
  const Doubles student = {0.3, -1.2, 2.0, 0.1, 0.4, -0.5, -2.0, 1.5},
                teacher = {1.0, -0.2, 0.5, 0.3, -1.4, 0.5, 2.0, 0.1};
  for (DistillationKind kind : {DistillationKind::forward, DistillationKind::reverse, DistillationKind::js}) {
    DistillationOptions options;
    options.kind = kind;
    options.temperature = 1.7;
    options.beta = 0.3;
    const auto out = distillation<double>(student, teacher, 4, options);
    for (double loss : out.losses) EXPECT_GT(loss, 0);
    expect_gradient(
        [&](const Doubles& x) { return total(distillation<double>(x, teacher, 4, options).losses); }, student,
        out.gradient);
    EXPECT_NEAR(total(distillation<double>(teacher, teacher, 4, options).losses), 0, 1e-14);
  }
}

TEST(LossGradients, RewardModelByDifferences) {
  const Doubles chosen = {0.5, -1.0, 2.0}, rejected = {0.1, 0.4, -0.3}, margins = {0.0, 1.0, 0.5};
  const auto out = reward_model<double>(chosen, rejected, margins, 0.01);
  EXPECT_NEAR(out.losses[0], std::log1p(std::exp(-0.4)) + 0.01 * 0.36, 1e-12);
  expect_gradient(
      [&](const Doubles& x) { return total(reward_model<double>(x, rejected, margins, 0.01).losses); },
      chosen, out.d_chosen);
  expect_gradient(
      [&](const Doubles& x) { return total(reward_model<double>(chosen, x, margins, 0.01).losses); },
      rejected, out.d_rejected);
}

TEST(LossGradients, EntropyByDifferences) {
  const Doubles logits = {0.3, -1.2, 2.0, 0.1, 0.4, -0.5};
  Doubles gradient;
  entropies<double>(logits, 3, &gradient);
  expect_gradient([&](const Doubles& x) { return total(entropies<double>(x, 3)); }, logits, gradient);
}

TEST(LossGradients, BaselinesOfRunningMeansAreConstants) {
  const Doubles c = {-3.0, -5.0}, r = {-4.0, -4.5}, rc = {-3.2, -4.8}, rr = {-4.1, -4.4};
  DpoOptions options;
  options.loss = PreferenceLoss::bco_pair;
  options.baseline = 0.03;
  const auto out = dpo<double>({c, r, rc, rr}, options);
  expect_gradient(
      [&](const Doubles& x) {
        return total(dpo<double>({x, r, rc, rr}, options).losses);
      },
      c, out.d_chosen);
  expect_gradient(
      [&](const Doubles& x) {
        return total(dpo<double>({c, x, rc, rr}, options).losses);
      },
      r, out.d_rejected);
}

// Certain and impossible answers stay finite, in float as well.
TEST(LossExtremes, StayFinite) {
  const std::vector<float> c = {0.0f, -5000.0f, -1.0f}, r = {-5000.0f, 0.0f, -1.0f}, z = {0.0f, 0.0f, 0.0f};
  const auto all_finite = [](const PairLosses<float>& out) {
    for (const auto* v : {&out.losses, &out.d_chosen, &out.d_rejected})
      for (float x : *v) EXPECT_TRUE(std::isfinite(x));
  };
  for (const std::string& name : preference_loss_names()) {
    SCOPED_TRACE(name);
    DpoOptions options;
    options.loss = preference_loss_from_name(name);
    all_finite(dpo<float>({c, r, z, z}, options));
  }
  DpoOptions alpha;
  alpha.divergence = Divergence::alpha;
  all_finite(dpo<float>({c, r, z, z}, alpha));
  all_finite(orpo<float>({c, r}, 0.1));
  all_finite(simpo<float>({c, r}, {}));
}

TEST(LossOptions, RefusedWithASentence) {
  EXPECT_NE(test::error_of([] { preference_loss_from_name("sigmod"); }).find("did you mean 'sigmoid'?"),
            std::string::npos);
  const Doubles one = {-1.0}, two = {-1.0, -2.0};
  DpoOptions options;
  EXPECT_NE(test::error_of([&] {
              dpo<double>({one, two, one, one}, options);
            }).find("expected 1 log-probabilities of each kind, found 2"),
            std::string::npos);
  options.loss = PreferenceLoss::hinge;
  options.label_smoothing = 0.1;
  EXPECT_NE(test::error_of([&] {
              dpo<double>({one, one, one, one}, options);
            }).find("hinge has no label smoothing"),
            std::string::npos);
  options = {};
  options.loss = PreferenceLoss::robust;
  options.label_smoothing = 0.5;
  EXPECT_NE(test::error_of([&] {
              dpo<double>({one, one, one, one}, options);
            }).find("from 0 to below 0.5 for robust"),
            std::string::npos);
  options = {};
  options.loss = PreferenceLoss::apo_zero;
  options.divergence = Divergence::js;
  EXPECT_NE(test::error_of([&] {
              dpo<double>({one, one, one, one}, options);
            }).find("not a function of the margin"),
            std::string::npos);
  const std::vector<double> rewards = {1, 2, 3};
  EXPECT_NE(test::error_of([&] { group_advantages<double>(rewards, 2); }).find("groups of 2 rewards"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv::losses
