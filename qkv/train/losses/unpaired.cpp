#include "qkv/train/losses/unpaired.h"

#include <algorithm>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/train/losses/scalar.h"

namespace qkv::losses {
namespace {

const std::vector<std::string> kNames = {"kto", "apo_zero_unpaired",
                                         "bco"};  // in the order of the enumeration

}  // namespace

std::vector<std::string> unpaired_loss_names() {
  return kNames;
}

UnpairedLoss unpaired_loss_from_name(const std::string& name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end())
    fail("unpaired loss: expected one of {}, found '{}'{}", fmt::join(kNames, ", "), name,
         suggestion(name, kNames));
  return static_cast<UnpairedLoss>(found - kNames.begin());
}

template <typename T>
UnpairedLosses<T> unpaired(std::span<const T> policy, std::span<const T> reference,
                           std::span<const char> good, const UnpairedOptions& options) {
  const size_t n = policy.size();
  require(reference.size() == n && good.size() == n,
          "unpaired loss: expected {} references and labels, found {} and {}", n, reference.size(),
          good.size());
  require(options.beta > 0, "unpaired loss: beta: expected a positive number, found {}", options.beta);
  const T beta = static_cast<T>(options.beta);
  UnpairedLosses<T> out;
  for (size_t i = 0; i < n; ++i) out.rewards.push_back(beta * (policy[i] - reference[i]));
  if (options.loss == UnpairedLoss::bco) {
    const T total = std::accumulate(out.rewards.begin(), out.rewards.end(), T{0});
    out.baseline =
        options.baseline.value_or(static_cast<double>(total) / static_cast<double>(std::max<size_t>(1, n)));
  } else if (options.loss == UnpairedLoss::kto) {
    out.baseline = options.baseline.value_or(0);
  }
  const T shift =
      static_cast<T>(options.loss == UnpairedLoss::kto ? options.beta * out.baseline : out.baseline);
  for (size_t i = 0; i < n; ++i) {
    // Both labels are the same function, mirrored.
    const T sign = good[i] ? T{1} : T{-1};
    const T x = sign * (out.rewards[i] - shift);
    if (options.loss == UnpairedLoss::bco) {
      out.losses.push_back(-log_sigmoid(x));
      out.gradients.push_back(-sign * beta * sigmoid(-x));
    } else {
      const T weight = static_cast<T>(good[i] ? options.desirable_weight : options.undesirable_weight);
      out.losses.push_back(weight * sigmoid(-x));
      out.gradients.push_back(-sign * weight * beta * sigmoid(x) * sigmoid(-x));
    }
  }
  return out;
}

template <typename T>
double kto_baseline(std::span<const T> policy, std::span<const T> reference) {
  require(policy.size() == reference.size(), "kto: expected {} reference log-probabilities, found {}",
          policy.size(), reference.size());
  double total = 0;
  for (size_t i = 0; i < policy.size(); ++i)
    total += static_cast<double>(policy[i]) - static_cast<double>(reference[i]);
  return policy.empty() ? 0 : std::max(0.0, total / static_cast<double>(policy.size()));
}

template UnpairedLosses<float> unpaired(std::span<const float>, std::span<const float>, std::span<const char>,
                                        const UnpairedOptions&);
template UnpairedLosses<double> unpaired(std::span<const double>, std::span<const double>,
                                         std::span<const char>, const UnpairedOptions&);
template double kto_baseline(std::span<const float>, std::span<const float>);
template double kto_baseline(std::span<const double>, std::span<const double>);

}  // namespace qkv::losses
