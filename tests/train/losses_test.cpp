// Preference and reinforcement losses against the values and gradients of the frameworks that defined them,
// in double and in single precision; and through the tape, from logits.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/losses/distillation.h"
#include "qkv/train/losses/dpo.h"
#include "qkv/train/losses/grpo.h"
#include "qkv/train/losses/monolithic.h"
#include "qkv/train/losses/on_tape.h"
#include "qkv/train/losses/ppo.h"
#include "qkv/train/losses/unpaired.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv::losses {
namespace {

using Doubles = std::vector<double>;

const test::GoldenSafetensors& golden() {
  static const test::GoldenSafetensors file(test::golden("train/losses/losses.safetensors"));
  return file;
}

const Json& cases() {
  static const Json json = load_json(test::golden("train/losses/losses.json"));
  return json;
}

template <typename T>
std::vector<T> to(const Doubles& values) {
  return std::vector<T>(values.begin(), values.end());
}

template <typename T>
std::vector<T> read(const std::string& name) {
  return to<T>(golden().values(name));
}

Doubles divided(Doubles values, const Doubles& by) {
  for (size_t i = 0; i < values.size(); ++i) values[i] /= by[i];
  return values;
}

// Double: 1e-10. Single: 1e-5 of the largest value; inputs near 100 are themselves rounded by 4e-6.
template <typename T>
void expect_close(const std::vector<T>& found, Doubles expected, const std::string& what, double factor = 1) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double size = 0;
  for (double& e : expected) size = std::max(size, std::abs(e *= factor));
  const double tolerance =
      std::is_same_v<T, double> ? 1e-10 * std::max(1.0, size) : 1e-5 * std::max(1e-3, size);
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(static_cast<double>(found[i]), expected[i], tolerance) << what << "[" << i << "]";
}

template <typename T>
class Losses : public testing::Test {};
using Scalars = testing::Types<double, float>;
TYPED_TEST_SUITE(Losses, Scalars);

template <typename T>
double mean(const std::vector<T>& values) {
  double sum = 0;
  for (T value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

template <typename T>
void expect_mean(double found, const Json& expected, const std::string& what) {
  const auto want = expected.get<double>();
  EXPECT_NEAR(found, want, (std::is_same_v<T, double> ? 1e-10 : 1e-5) * std::max(1.0, std::abs(want)))
      << what;
}

template <typename T>
struct PreferenceInputs {
  std::vector<T> chosen, rejected, reference_chosen, reference_rejected;
  explicit PreferenceInputs(bool average) {
    const Doubles lc = golden().values("pref.len_chosen"), lr = golden().values("pref.len_rejected");
    const auto take = [&](const std::string& name, const Doubles& lengths) {
      const Doubles values = golden().values("pref." + name);
      return to<T>(average ? divided(values, lengths) : values);
    };
    chosen = take("policy_chosen_logps", lc);
    rejected = take("policy_rejected_logps", lr);
    reference_chosen = take("reference_chosen_logps", lc);
    reference_rejected = take("reference_rejected_logps", lr);
  }
  Pairs<T> pairs() const { return {chosen, rejected, reference_chosen, reference_rejected}; }
};

TYPED_TEST(Losses, DpoFamily) {
  using T = TypeParam;
  int seen = 0;
  std::vector<std::string> covered;
  for (const auto& [name, setting] : cases().items()) {
    if (name.rfind("dpo_", 0) != 0) continue;
    ++seen;
    SCOPED_TRACE(name);
    DpoOptions options;
    options.loss = preference_loss_from_name(setting["loss_type"].template get<std::string>());
    options.beta = setting["beta"].template get<double>();
    options.label_smoothing = setting["label_smoothing"].template get<double>();
    options.reference_free = setting["reference_free"].template get<bool>();
    const auto divergence = setting["f_divergence"].template get<std::string>();
    options.divergence = divergence_from_name(divergence == "js_divergence"      ? "js"
                                              : divergence == "alpha_divergence" ? "alpha"
                                                                                 : divergence);
    options.alpha = 0.5;
    const PreferenceInputs<T> in(setting["inputs"].template get<std::string>() != "sums");
    const PairLosses<T> out = dpo(in.pairs(), options);
    const auto n = static_cast<double>(out.losses.size());
    expect_close(out.losses, golden().values(name + ".losses"), "losses");
    expect_mean<T>(mean(out.losses), setting["mean"], "mean");
    expect_close(out.chosen_rewards, golden().values(name + ".chosen_rewards"), "chosen rewards");
    expect_close(out.rejected_rewards, golden().values(name + ".rejected_rewards"), "rejected rewards");
    expect_close(out.d_chosen, golden().values(name + ".grad_of_mean.arg0"), "d chosen", n);
    expect_close(out.d_rejected, golden().values(name + ".grad_of_mean.arg1"), "d rejected", n);
    if (options.reference_free) continue;
    expect_close(out.d_reference_chosen, golden().values(name + ".grad_of_mean.arg2"), "d reference chosen",
                 n);
    expect_close(out.d_reference_rejected, golden().values(name + ".grad_of_mean.arg3"),
                 "d reference rejected", n);
    covered.push_back(setting["loss_type"].template get<std::string>());
  }
  EXPECT_EQ(seen, 17);
  for (const std::string& name : preference_loss_names())
    EXPECT_NE(std::find(covered.begin(), covered.end(), name), covered.end()) << name;
}

TYPED_TEST(Losses, CpoSimpoAndOrpo) {
  using T = TypeParam;
  int seen = 0;
  for (const auto& [name, setting] : cases().items()) {
    const bool odds = name == "orpo_odds";
    if (!odds && name.rfind("cpo_", 0) != 0 && name.rfind("simpo", 0) != 0) continue;
    ++seen;
    SCOPED_TRACE(name);
    const PreferenceInputs<T> in(odds || setting["inputs"] == "per-token averages");
    const auto beta = setting["beta"].template get<double>();
    PairLosses<T> out;
    if (odds) {
      out = orpo(in.pairs(), beta);
    } else if (setting["loss_type"] == "simpo") {
      out = simpo(in.pairs(), {beta, setting["simpo_gamma"].template get<double>(),
                               setting["label_smoothing"].template get<double>()});
    } else {
      CpoOptions options;
      options.loss = preference_loss_from_name(setting["loss_type"].template get<std::string>());
      options.beta = beta;
      options.label_smoothing = setting["label_smoothing"].template get<double>();
      out = cpo(in.pairs(), options);
    }
    // The reference returns what is subtracted for ORPO.
    const double sign = odds ? -1 : 1, n = sign * static_cast<double>(out.losses.size());
    expect_close(out.losses, golden().values(name + ".losses"), "losses", sign);
    expect_mean<T>(sign * mean(out.losses), setting["mean"], "mean");
    expect_close(out.d_chosen, golden().values(name + ".grad_of_mean.arg0"), "d chosen", n);
    expect_close(out.d_rejected, golden().values(name + ".grad_of_mean.arg1"), "d rejected", n);
  }
  EXPECT_EQ(seen, 6);
}

TYPED_TEST(Losses, UnpairedLosses) {
  using T = TypeParam;
  std::vector<T> policy = read<T>("kto_in.policy_chosen_logps"),
                 reference = read<T>("kto_in.reference_chosen_logps");
  const size_t good_count = policy.size();
  for (T x : read<T>("kto_in.policy_rejected_logps")) policy.push_back(x);
  for (T x : read<T>("kto_in.reference_rejected_logps")) reference.push_back(x);
  std::vector<char> good(policy.size(), 0);
  std::fill_n(good.begin(), good_count, 1);
  for (const char* name : {"kto", "kto_apo_zero_unpaired", "bco"}) {
    SCOPED_TRACE(name);
    const Json& setting = cases()[name];
    UnpairedOptions options;
    options.loss =
        unpaired_loss_from_name(std::string(name) == "kto_apo_zero_unpaired" ? "apo_zero_unpaired" : name);
    options.beta = setting["beta"].get<double>();
    if (setting.contains("desirable_weight")) {
      options.desirable_weight = setting["desirable_weight"].get<double>();
      options.undesirable_weight = setting["undesirable_weight"].get<double>();
    }
    if (options.loss == UnpairedLoss::kto) {
      options.baseline = kto_baseline(std::span<const T>(read<T>("kto_in.policy_KL_logps")),
                                      std::span<const T>(read<T>("kto_in.reference_KL_logps")));
      expect_mean<T>(*options.baseline, setting["kl"], "kl");
    }
    const UnpairedLosses<T> out = unpaired<T>(policy, reference, good, options);
    if (options.loss == UnpairedLoss::bco) expect_mean<T>(out.baseline, setting["delta"], "delta");
    expect_close(out.losses, golden().values(std::string(name) + ".losses"), "losses");
    expect_mean<T>(mean(out.losses), setting["mean"], "mean");
    // BCO's inputs: policy and reference, good and bad; KTO's also the mismatched answers.
    const bool bco = options.loss == UnpairedLoss::bco;
    const auto check = [&](int good_arg, int bad_arg, double sign) {
      Doubles expected = golden().values(std::string(name) + ".grad_of_mean.arg" + std::to_string(good_arg));
      for (double x : golden().values(std::string(name) + ".grad_of_mean.arg" + std::to_string(bad_arg)))
        expected.push_back(x);
      expect_close(out.gradients, expected, "gradients", sign * static_cast<double>(out.losses.size()));
    };
    check(0, 1, 1);
    check(bco ? 2 : 3, bco ? 3 : 4, -1);
    if (bco) continue;
    expect_close(std::vector<T>(out.rewards.begin(), out.rewards.begin() + 5),
                 golden().values(std::string(name) + ".chosen_rewards"), "rewards");
    expect_close(std::vector<T>(out.rewards.begin() + 5, out.rewards.end()),
                 golden().values(std::string(name) + ".rejected_rewards"), "rewards");
  }
}

// A padded (rows, length) fixture without its padding, which is at the ends of rows.
struct Unpadded {
  std::vector<size_t> places;
  std::vector<int64_t> offsets = {0};
  explicit Unpadded(const std::string& mask_name) {
    const Doubles mask = golden().values(mask_name);
    const auto length = static_cast<size_t>(golden().shape(mask_name)[1]);
    for (size_t i = 0; i < mask.size(); ++i) {
      if (mask[i] != 0) places.push_back(i);
      if ((i + 1) % length == 0) offsets.push_back(static_cast<int64_t>(places.size()));
    }
  }
  Doubles take(const std::string& name) const {
    const Doubles all = golden().values(name);
    Doubles result;
    for (size_t place : places) result.push_back(all[place]);
    return result;
  }
  template <typename T>
  std::vector<T> read(const std::string& name) const {
    return to<T>(take(name));
  }
};

TYPED_TEST(Losses, Ppo) {
  using T = TypeParam;
  const Json& setting = cases()["ppo"];
  const Unpadded in("ppo_in.mask");
  const std::vector<T> values = in.read<T>("ppo_in.values"), rewards = in.read<T>("ppo_in.rewards");
  GaeOptions gae;
  gae.gamma = setting["gamma"].get<double>();
  gae.lambda = setting["lam"].get<double>();
  const Advantages<T> a = advantages<T>(rewards, values, in.offsets, gae);
  expect_close(a.raw, in.take("gae.advantages_raw"), "raw advantages");
  expect_close(a.whitened, in.take("gae.advantages_whitened"), "whitened advantages");
  expect_close(a.returns, in.take("gae.returns"), "returns");

  PolicyStatistics statistics;
  double value_clipped = 0;
  const std::vector<T> log_probs = in.read<T>("ppo_in.logprobs"), old = in.read<T>("ppo_in.old_logprobs"),
                       predictions = in.read<T>("ppo_in.vpreds");
  const TokenLoss<T> policy =
      ppo_policy<T>(log_probs, old, a.whitened, setting["cliprange"].get<double>(), &statistics);
  const TokenLoss<T> value =
      ppo_value<T>(predictions, values, a.returns, setting["cliprange_value"].get<double>(), &value_clipped);
  expect_mean<T>(policy.value, setting["pg_loss"], "policy loss");
  expect_mean<T>(setting["vf_coef"].get<double>() * value.value, setting["vf_coef_times_vf_loss"],
                 "value loss");
  expect_close(policy.gradient, in.take("ppo.grad_logprobs"), "d log-probabilities");
  expect_close(value.gradient, in.take("ppo.grad_vpreds"), "d values", 1 / setting["vf_coef"].get<double>());
  const Json& stats = setting["stats"];
  expect_mean<T>(statistics.clipped, stats["policy/clipfrac"], "clipped");
  expect_mean<T>(statistics.approx_kl, stats["policy/approxkl"], "approximate KL");
  expect_mean<T>(statistics.policy_kl, stats["policy/policykl"], "policy KL");
  expect_mean<T>(value_clipped, stats["val/clipfrac"], "values clipped");
  expect_mean<T>(moments<T>(a.returns).mean, stats["returns/mean"], "mean return");
  // The reference's variances in its statistics are unbiased.
  expect_mean<T>(moments<T>(a.returns).variance, stats["returns/var"], "variance of returns");
  const std::vector<T> logits = read<T>("ppo_in.logits");
  const std::vector<T> entropy = entropies<T>(logits, 17);
  std::vector<T> counted;
  for (size_t place : in.places) counted.push_back(entropy[place]);
  expect_mean<T>(mean(counted), stats["policy/entropy"], "entropy");
}

TYPED_TEST(Losses, Grpo) {
  using T = TypeParam;
  const Unpadded in("grpo_in.completion_mask");
  const std::vector<T> rewards = read<T>("grpo_in.rewards");
  const auto group = cases()["grpo_in"]["num_generations"].get<int64_t>();
  const std::vector<T> scaled = group_advantages<T>(rewards, group),
                       centered = group_advantages<T>(rewards, group, GroupBaseline::centered);
  expect_close(scaled, golden().values("grpo_in.advantages"), "advantages");
  expect_close(centered, golden().values("grpo_in.advantages_noscale"), "advantages, not scaled");
  const std::vector<T> left_out = group_advantages<T>(rewards, group, GroupBaseline::leave_one_out);
  EXPECT_NEAR(static_cast<double>(left_out[1]),
              static_cast<double>(rewards[1] - (rewards[0] + rewards[2] + rewards[3]) / 3), 1e-5);

  for (const char* name : {"grpo", "grpo_bnpo", "grpo_dr", "grpo_onpolicy", "grpo_delta"}) {
    SCOPED_TRACE(name);
    const Json& setting = cases()[name];
    GrpoOptions options;
    options.normalization = token_normalization_from_name(setting["loss_type"].get<std::string>());
    options.beta = setting["beta"].get<double>();
    options.clip_low = setting["epsilon_low"].get<double>();
    options.clip_high = setting["epsilon_high"].get<double>();
    if (!setting["delta"].is_null()) options.delta = setting["delta"].get<double>();
    options.max_length = setting["max_completion_length"].get<int64_t>();
    const bool on_policy = std::string(name) == "grpo_onpolicy";
    const std::vector<T> log_probs = in.read<T>("grpo_in.per_token_logps"),
                         old = in.read<T>("grpo_in.old_per_token_logps"),
                         reference = in.read<T>("grpo_in.ref_per_token_logps");
    const std::span<const T> none;
    GrpoStatistics statistics;
    const TokenLoss<T> out = grpo<T>(log_probs, on_policy ? none : std::span<const T>(old),
                                     options.beta == 0 ? none : std::span<const T>(reference), in.offsets,
                                     scaled, options, &statistics);
    expect_mean<T>(out.value, setting["loss"], "loss");
    expect_close(out.gradient, in.take(std::string(name) + ".grad_per_token_logps"), "gradient");
    const Json& metrics = setting["metrics"];
    if (metrics.contains("kl")) expect_mean<T>(statistics.kl, metrics["kl"], "kl");
    expect_mean<T>(statistics.clipped_low, metrics["clip_ratio/low_mean"], "clipped low");
    expect_mean<T>(statistics.clipped_high, metrics["clip_ratio/high_mean"], "clipped high");
    expect_mean<T>(statistics.clipped_low + statistics.clipped_high, metrics["clip_ratio/region_mean"],
                   "clipped");
  }
}

TYPED_TEST(Losses, DistillationMatchesTheReference) {
  using T = TypeParam;
  const test::GoldenSafetensors ops(test::golden("ops/ops.safetensors"));
  const auto shape = ops.shape("distill_kl_T2.student");
  DistillationOptions options;
  options.temperature = 2;
  options.scale_by_temperature = true;
  const std::vector<T> student = to<T>(ops.values("distill_kl_T2.student")),
                       teacher = to<T>(ops.values("distill_kl_T2.teacher"));
  const DistillationLosses<T> out = distillation<T>(student, teacher, shape[1], options);
  const double tolerance = std::is_same_v<T, double> ? 1e-10 : 1e-5;
  EXPECT_NEAR(mean(out.losses), ops.values("distill_kl_T2.out")[0], tolerance);
  expect_close(out.gradient, ops.values("distill_kl_T2.dstudent"), "gradient", static_cast<double>(shape[0]));
}

// From logits to the loss and back: (4, 12, 40) logits, rows 0 and 1 chosen, 2 and 3 rejected.
TEST(LossesOnTheTape, DpoFromLogits) {
  constexpr int64_t kRows = 4, kLength = 12, kVocabulary = 40;
  const Doubles labels = golden().values("e2e.labels");
  std::vector<int32_t> targets;
  std::vector<float> use;  // 1 where logits[t] predicts a counted label
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t t = 0; t < kLength; ++t) {
      const double label = t + 1 < kLength ? labels[static_cast<size_t>(r * kLength + t + 1)] : -100;
      targets.push_back(label < 0 ? 0 : static_cast<int32_t>(label));
      use.push_back(label < 0 ? 0.0f : 1.0f);
    }
  }
  const std::vector<int64_t> offsets = {0, kLength, 2 * kLength, 3 * kLength, 4 * kLength};
  const auto sums = [&](const Tensor& logits) {
    const Tensor picked =
        ops::reshape(ops::gather_cols(ops::log_softmax(logits), targets), Shape{kRows * kLength});
    return segment_sums(ops::multiply(picked, Tensor::from(use, Shape{kRows * kLength})), offsets);
  };
  Tensor policy = Tensor::from(read<float>("e2e.policy_logits"), Shape{kRows * kLength, kVocabulary});
  policy.set_requires_grad(true);
  const Tensor policy_sums = sums(policy);
  const Tensor reference_sums =
      sums(Tensor::from(read<float>("e2e.reference_logits"), Shape{kRows * kLength, kVocabulary}));
  expect_close(policy_sums.to_floats(), golden().values("e2e.policy_logps_sum"), "policy");
  expect_close(reference_sums.to_floats(), golden().values("e2e.reference_logps_sum"), "reference");

  const std::span<const float> p = policy_sums.span<float>(), r = reference_sums.span<float>();
  DpoOptions options;
  options.beta = cases()["e2e_dpo"]["beta"].get<double>();
  const PairLosses<float> out =
      dpo<float>({p.subspan(0, 2), p.subspan(2, 2), r.subspan(0, 2), r.subspan(2, 2)}, options);
  Tensor gradient = Tensor::empty({4});
  for (int i = 0; i < 2; ++i) {
    gradient.data<float>()[i] = out.d_chosen[static_cast<size_t>(i)] / 2;
    gradient.data<float>()[2 + i] = out.d_rejected[static_cast<size_t>(i)] / 2;
  }
  const Tensor loss = with_gradients(mean(out.losses), {policy_sums}, {gradient});
  expect_mean<float>(loss.item(), cases()["e2e_dpo"]["loss"], "loss");
  backward(loss);
  expect_close(policy.grad().to_floats(), golden().values("e2e.grad_policy_logits"), "d logits");
}

TEST(LossesOnTheTape, SegmentSumsDivide) {
  Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 4, 5}, Shape{5});
  x.set_requires_grad(true);
  const Tensor y = segment_sums(x, {0, 2, 2, 5}, {2, 1, 3});
  EXPECT_EQ(y.to_floats(), (std::vector<float>{1.5f, 0, 4}));
  backward(y, Tensor::from(std::vector<float>{4, 7, 9}, Shape{3}));
  EXPECT_EQ(x.grad().to_floats(), (std::vector<float>{2, 2, 3, 3, 3}));
  EXPECT_THROW(segment_sums(x, {0, 4}), Error);
}

}  // namespace
}  // namespace qkv::losses
