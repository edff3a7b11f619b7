#include "qkv/train/losses/monolithic.h"

#include <cmath>
#include <limits>

#include "qkv/core/error.h"
#include "qkv/train/losses/scalar.h"

namespace qkv::losses {
namespace {

template <typename T>
PairLosses<T> empty_losses(const Pairs<T>& pairs, double beta) {
  const size_t n = pairs.chosen.size();
  require(pairs.rejected.size() == n, "preference loss: expected {} log-probabilities of each kind, found {}",
          n, pairs.rejected.size());
  require(beta > 0, "preference loss: beta: expected a positive number, found {}", beta);
  PairLosses<T> out;
  for (auto* v : {&out.losses, &out.d_chosen, &out.d_rejected}) v->assign(n, T{0});
  for (size_t i = 0; i < n; ++i) {
    out.chosen_rewards.push_back(static_cast<T>(beta) * pairs.chosen[i]);
    out.rejected_rewards.push_back(static_cast<T>(beta) * pairs.rejected[i]);
  }
  return out;
}

// log(p / (1 - p)) of a log-probability, with its derivative 1 / (1 - p).
template <typename T>
Slope<T> log_odds(T log_p) {
  const T capped = std::min(log_p, -std::numeric_limits<T>::epsilon());
  const T complement = -std::expm1(capped);
  return {capped - std::log(complement), log_p > capped ? T{0} : 1 / complement};
}

}  // namespace

template <typename T>
PairLosses<T> cpo(const Pairs<T>& pairs, const CpoOptions& options) {
  require(options.loss == PreferenceLoss::sigmoid || options.loss == PreferenceLoss::hinge ||
              options.loss == PreferenceLoss::ipo,
          "cpo: loss: expected sigmoid, hinge or ipo, found {}",
          preference_loss_names()[static_cast<size_t>(options.loss)]);
  DpoOptions dpo_options;
  dpo_options.loss = options.loss;
  dpo_options.beta = options.beta;
  dpo_options.label_smoothing = options.label_smoothing;
  dpo_options.reference_free = true;
  return dpo(Pairs<T>{pairs.chosen, pairs.rejected}, dpo_options);
}

template <typename T>
PairLosses<T> simpo(const Pairs<T>& pairs, const SimpoOptions& options) {
  PairLosses<T> out = empty_losses(pairs, options.beta);
  const T beta = static_cast<T>(options.beta), gamma = static_cast<T>(options.gamma);
  for (size_t i = 0; i < out.losses.size(); ++i) {
    const Slope<T> loss = smoothed_log_loss(beta * (pairs.chosen[i] - pairs.rejected[i]) - gamma,
                                            static_cast<T>(options.label_smoothing));
    out.losses[i] = loss.value;
    out.d_chosen[i] = beta * loss.derivative;
    out.d_rejected[i] = -beta * loss.derivative;
  }
  return out;
}

template <typename T>
PairLosses<T> orpo(const Pairs<T>& pairs, double beta) {
  PairLosses<T> out = empty_losses(pairs, beta);
  for (size_t i = 0; i < out.losses.size(); ++i) {
    const Slope<T> chosen = log_odds(pairs.chosen[i]), rejected = log_odds(pairs.rejected[i]);
    const T x = chosen.value - rejected.value, slope = -static_cast<T>(beta) * sigmoid(-x);
    out.losses[i] = -static_cast<T>(beta) * log_sigmoid(x);
    out.d_chosen[i] = slope * chosen.derivative;
    out.d_rejected[i] = -slope * rejected.derivative;
  }
  return out;
}

template PairLosses<float> cpo(const Pairs<float>&, const CpoOptions&);
template PairLosses<double> cpo(const Pairs<double>&, const CpoOptions&);
template PairLosses<float> simpo(const Pairs<float>&, const SimpoOptions&);
template PairLosses<double> simpo(const Pairs<double>&, const SimpoOptions&);
template PairLosses<float> orpo(const Pairs<float>&, double);
template PairLosses<double> orpo(const Pairs<double>&, double);

}  // namespace qkv::losses
