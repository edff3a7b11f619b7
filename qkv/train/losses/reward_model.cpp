#include "qkv/train/losses/reward_model.h"

#include "qkv/core/error.h"
#include "qkv/train/losses/scalar.h"

namespace qkv::losses {

template <typename T>
RewardLosses<T> reward_model(std::span<const T> chosen, std::span<const T> rejected,
                             std::span<const T> margins, double centering) {
  const size_t n = chosen.size();
  require(rejected.size() == n && (margins.empty() || margins.size() == n),
          "reward loss: expected {} rejected scores and as many margins or none, found {} and {}", n,
          rejected.size(), margins.size());
  RewardLosses<T> out;
  const T c = static_cast<T>(centering);
  for (size_t i = 0; i < n; ++i) {
    const T x = chosen[i] - rejected[i] - (margins.empty() ? T{0} : margins[i]),
            sum = chosen[i] + rejected[i];
    out.losses.push_back(-log_sigmoid(x) + c * sum * sum);
    out.d_chosen.push_back(-sigmoid(-x) + 2 * c * sum);
    out.d_rejected.push_back(sigmoid(-x) + 2 * c * sum);
  }
  return out;
}

template RewardLosses<float> reward_model(std::span<const float>, std::span<const float>,
                                          std::span<const float>, double);
template RewardLosses<double> reward_model(std::span<const double>, std::span<const double>,
                                           std::span<const double>, double);

}  // namespace qkv::losses
