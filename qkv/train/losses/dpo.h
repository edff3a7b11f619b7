// Direct preference optimization and its family: losses of pairs of log-probabilities, with gradients.
//
// For a prompt x with a chosen and a rejected answer, let a = log pi(chosen|x) - log pi_ref(chosen|x), b the
// same of the rejected one, and h = a - b. With b' for beta and s for label smoothing:
//   sigmoid    -(1-s) log sigmoid(b' h) - s log sigmoid(-b' h)    Rafailov et al., arXiv 2305.18290; s > 0:
//   cDPO (Mitchell 2023) robust     (-(1-s) log sigmoid(b' h) + s log sigmoid(-b' h)) / (1 - 2s) Chowdhury et
//   al., arXiv 2403.00409 hinge      max(0, 1 - b' h) SLiC: Zhao et al., arXiv 2305.10425 ipo        (h - 1 /
//   (2 b'))^2, on log-probabilities averaged over tokens             Azar et al., arXiv 2310.12036, (17)
//   exo_pair   KL(sigmoid(b' h) || 1 - s), s = 0.001 if not given                        Ji et al., arXiv
//   2402.00856, (16) nca_pair   -log sigmoid(b' a) - (log sigmoid(-b' a) + log sigmoid(-b' b)) / 2 Chen et
//   al., arXiv 2402.05369 sppo_hard  (a - 1 / (2 b'))^2 + (b + 1 / (2 b'))^2 Wu et al., arXiv 2405.00675,
//   (4.7) apo_zero   1 - sigmoid(b' a) + sigmoid(b' b)                                         D'Oosterlinck
//   et al., arXiv 2408.06266, (7) apo_down   sigmoid(b' a) + 1 - sigmoid(b' h) the same, (8) bco_pair   -log
//   sigmoid(b' a - d) - log sigmoid(d - b' b), d the mean reward         Jung et al., arXiv 2404.04656
//   aot_pair   sigmoid's loss of sorted a - sorted b (over the batch)                    Melnyk et al., arXiv
//   2406.05882 aot        sigmoid's loss of sorted (chosen - rejected of pi) - sorted (the same of pi_ref)
// Other divergences than the reverse KL (Wang et al., arXiv 2309.16240) change h, for losses of h alone:
//   js         h = a - b - (log(1 + e^a) - log(1 + e^b))
//   alpha      h = (e^(-alpha b) - e^(-alpha a)) / alpha
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace qkv::losses {

enum class PreferenceLoss {
  sigmoid,
  robust,
  hinge,
  ipo,
  exo_pair,
  nca_pair,
  sppo_hard,
  apo_zero,
  apo_down,
  bco_pair,
  aot_pair,
  aot
};
enum class Divergence { reverse_kl, js, alpha };

std::vector<std::string> preference_loss_names();
// Error that lists the names and suggests the nearest.
PreferenceLoss preference_loss_from_name(const std::string& name);
std::vector<std::string> divergence_names();
Divergence divergence_from_name(const std::string& name);

struct DpoOptions {
  PreferenceLoss loss = PreferenceLoss::sigmoid;
  double beta = 0.1;
  double label_smoothing = 0;
  bool reference_free = false;  // a uniform reference: its log-probabilities count as 0 in the loss
  Divergence divergence = Divergence::reverse_kl;
  double alpha = 1;  // of the alpha divergence
  std::optional<double>
      baseline;  // bco_pair's d, a running mean over batches; this batch's mean if not given
};

// Whether the loss is defined on log-probabilities averaged over an answer's tokens instead of summed.
inline bool wants_average(PreferenceLoss loss) {
  return loss == PreferenceLoss::ipo;
}

// Log-probabilities of whole answers, one pair per element. The references may be empty: zeros.
template <typename T>
struct Pairs {
  std::span<const T> chosen, rejected, reference_chosen = {}, reference_rejected = {};
};

// Gradients are those of the sum of the losses. Those with respect to the reference have a use where both are
// models that learn, and in tests.
template <typename T>
struct PairLosses {
  std::vector<T> losses;
  std::vector<T> chosen_rewards, rejected_rewards;  // beta a, beta b: what the policy has learned to pay
  std::vector<T> d_chosen, d_rejected, d_reference_chosen, d_reference_rejected;
};

// Error if the sizes differ, or an option is out of its range or has no meaning for the loss.
template <typename T>
PairLosses<T> dpo(const Pairs<T>& pairs, const DpoOptions& options);

}  // namespace qkv::losses
