// Losses of answers that are labelled good or bad by themselves, without a partner.
//
// With z = log pi(y|x) - log pi_ref(y|x), b' for beta, w+ and w- for the labels' weights:
//   kto                w+ (1 - sigmoid(b' (z - k))) for good, w- (1 - sigmoid(b' (k - z))) for bad answers,
//   with k the mean of
//                      log pi - log pi_ref over mismatched prompts and answers, no less than 0 and without a
//                      gradient
//                                                                                        Ethayarajh et al.,
//                                                                                        arXiv 2402.01306,
//                                                                                        (7)
//   apo_zero_unpaired  w+ (1 - sigmoid(b' z)), w- sigmoid(b' z)                           D'Oosterlinck et
//   al., arXiv 2408.06266, (7) bco                -log sigmoid(b' z - d), -log sigmoid(d - b' z), d the mean
//   reward  Jung et al., arXiv 2404.04656
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace qkv::losses {

enum class UnpairedLoss { kto, apo_zero_unpaired, bco };

std::vector<std::string> unpaired_loss_names();
UnpairedLoss unpaired_loss_from_name(const std::string& name);

struct UnpairedOptions {
  UnpairedLoss loss = UnpairedLoss::kto;
  double beta = 0.1;
  double desirable_weight = 1, undesirable_weight = 1;  // kto, apo_zero_unpaired
  // kto: k; bco: d, this batch's mean reward if not given.
  std::optional<double> baseline;
};

template <typename T>
struct UnpairedLosses {
  std::vector<T> losses, rewards;  // rewards: beta z
  std::vector<T> gradients;  // of the sum of the losses by the policy's log-probabilities; the reference's
                             // are their negative
  double baseline = 0;       // that was used
};

// One answer per element; good[i] != 0: a desirable one.
template <typename T>
UnpairedLosses<T> unpaired(std::span<const T> policy, std::span<const T> reference,
                           std::span<const char> good, const UnpairedOptions& options);

// max(0, mean of policy - reference): kto's k.
template <typename T>
double kto_baseline(std::span<const T> policy, std::span<const T> reference);

}  // namespace qkv::losses
