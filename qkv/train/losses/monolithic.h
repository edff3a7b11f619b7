// Preference losses that need no reference model.
//
// With c and r the policy's log-probabilities of the chosen and the rejected answer, b' for beta and s for
// label smoothing:
//   CPO    sigmoid, hinge or ipo of h = c - r as in losses/dpo.h, plus alpha times the chosen answer's mean
//   negative
//          log-probability (the caller adds that)                                        Xu et al., arXiv
//          2401.08417
//   SimPO  the smoothed sigmoid loss of b' (c - r) - gamma, on averages over tokens       Meng et al., arXiv
//   2405.14734 ORPO   -b' log sigmoid(log odds(c) - log odds(r)), odds(p) = p / (1 - p), on averages over
//   tokens, added to the chosen
//          answer's mean negative log-probability                                         Hong et al., arXiv
//          2403.07691
#pragma once

#include "qkv/train/losses/dpo.h"

namespace qkv::losses {

struct CpoOptions {
  PreferenceLoss loss = PreferenceLoss::sigmoid;  // or hinge or ipo
  double beta = 0.1;
  double label_smoothing = 0;
};

template <typename T>
PairLosses<T> cpo(const Pairs<T>& pairs, const CpoOptions& options);

struct SimpoOptions {
  double beta = 2;
  double gamma = 0.5;  // the margin b' (c - r) shall exceed
  double label_smoothing = 0;
};

template <typename T>
PairLosses<T> simpo(const Pairs<T>& pairs, const SimpoOptions& options);

// An average log-probability of 0 (certainty) has infinite odds; it counts as the next smaller number.
template <typename T>
PairLosses<T> orpo(const Pairs<T>& pairs, double beta);

}  // namespace qkv::losses
