#include "qkv/train/losses/dpo.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/train/losses/scalar.h"

namespace qkv::losses {
namespace {

// In the order of the enumerations.
const std::vector<std::string> kLossNames = {"sigmoid",  "robust",   "hinge",     "ipo",
                                             "exo_pair", "nca_pair", "sppo_hard", "apo_zero",
                                             "apo_down", "bco_pair", "aot_pair",  "aot"};
const std::vector<std::string> kDivergenceNames = {"reverse_kl", "js", "alpha"};

size_t index_of(const std::string& name, const std::vector<std::string>& names, const char* what) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    fail("{}: expected one of {}, found '{}'{}", what, fmt::join(names, ", "), name, suggestion(name, names));
  return static_cast<size_t>(found - names.begin());
}

// Losses of h alone.
bool is_margin_loss(PreferenceLoss loss) {
  return loss == PreferenceLoss::sigmoid || loss == PreferenceLoss::robust || loss == PreferenceLoss::hinge ||
         loss == PreferenceLoss::ipo || loss == PreferenceLoss::exo_pair;
}

bool takes_smoothing(PreferenceLoss loss) {
  return loss == PreferenceLoss::sigmoid || loss == PreferenceLoss::robust ||
         loss == PreferenceLoss::exo_pair || loss == PreferenceLoss::aot || loss == PreferenceLoss::aot_pair;
}

void check(const DpoOptions& options, size_t n, std::initializer_list<size_t> sizes,
           std::initializer_list<size_t> reference_sizes) {
  for (size_t size : sizes)
    require(size == n, "preference loss: expected {} log-probabilities of each kind, found {}", n, size);
  for (size_t size : reference_sizes) {
    require(size == n || size == 0,
            "preference loss: expected {} reference log-probabilities or none, found {}", n, size);
  }
  const std::string& name = kLossNames[static_cast<size_t>(options.loss)];
  require(options.beta > 0, "preference loss: beta: expected a positive number, found {}", options.beta);
  const double most = options.loss == PreferenceLoss::robust ? 0.5 : 1.0;
  require(options.label_smoothing >= 0 && options.label_smoothing < most,
          "preference loss: label_smoothing: expected a number from 0 to below {} for {}, found {}", most,
          name, options.label_smoothing);
  require(options.label_smoothing == 0 || takes_smoothing(options.loss),
          "preference loss: {} has no label smoothing", name);
  require(options.divergence == Divergence::reverse_kl || is_margin_loss(options.loss),
          "preference loss: {} is not a function of the margin, so the divergence must be reverse_kl", name);
  require(options.divergence != Divergence::alpha || options.alpha != 0,
          "preference loss: alpha: expected a number other than 0");
}

// A margin with its derivatives by a and b.
template <typename T>
struct Margin {
  T h, by_a, by_b;
};

template <typename T>
Margin<T> margin(T a, T b, const DpoOptions& options) {
  if (options.divergence == Divergence::js)
    return {a - b - (softplus(a) - softplus(b)), sigmoid(-a), -sigmoid(-b)};
  if (options.divergence == Divergence::alpha) {
    const T alpha = static_cast<T>(options.alpha);
    // Larger exponents would be infinite; the loss is flat beyond.
    const T cap = std::log(std::numeric_limits<T>::max()) - 1;
    const T x = -alpha * a, y = -alpha * b;
    const T ex = std::exp(std::min(x, cap)), ey = std::exp(std::min(y, cap));
    return {(ey - ex) / alpha, x <= cap ? ex : T{0}, y <= cap ? -ey : T{0}};
  }
  return {a - b, 1, -1};
}

// A loss of h with its derivative.
template <typename T>
Slope<T> margin_loss(T h, const DpoOptions& options) {
  const T beta = static_cast<T>(options.beta), s = static_cast<T>(options.label_smoothing), x = beta * h;
  switch (options.loss) {
    case PreferenceLoss::robust: {
      const T scale = 1 / (1 - 2 * s);
      return {(-log_sigmoid(x) * (1 - s) + log_sigmoid(-x) * s) * scale,
              -beta * (sigmoid(-x) * (1 - s) + sigmoid(x) * s) * scale};
    }
    case PreferenceLoss::hinge:
      return {std::max(T{0}, 1 - x), x < 1 ? -beta : T{0}};
    case PreferenceLoss::ipo: {
      const T distance = h - 1 / (2 * beta);
      return {distance * distance, 2 * distance};
    }
    case PreferenceLoss::exo_pair: {
      const T e = s == 0 ? static_cast<T>(1e-3) : s;
      const T on = std::log1p(-e), off = std::log(e);
      const T value = sigmoid(x) * (log_sigmoid(x) - on) + sigmoid(-x) * (log_sigmoid(-x) - off);
      return {value, beta * sigmoid(x) * sigmoid(-x) * (x - on + off)};
    }
    default: {
      const Slope<T> loss = smoothed_log_loss(x, s);
      return {loss.value, beta * loss.derivative};
    }
  }
}

std::vector<size_t> sorted_order(size_t n, const auto& value) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return value(i) < value(j); });
  return order;
}

// One pair's log-ratios at work: results go to `out`, gradients by a and by b to d_chosen and d_rejected.
template <typename T>
struct Family {
  const DpoOptions& options;
  PairLosses<T>& out;
  std::vector<T> a, b;
  T beta = static_cast<T>(options.beta);

  void set(size_t i, T loss, T by_a, T by_b) {
    out.losses[i] = loss;
    out.d_chosen[i] = by_a;
    out.d_rejected[i] = by_b;
  }

  void pair(size_t i, T baseline) {
    const T x = beta * a[i], y = beta * b[i];
    switch (options.loss) {
      case PreferenceLoss::nca_pair:
        return set(i, -log_sigmoid(x) - (log_sigmoid(-x) + log_sigmoid(-y)) / 2,
                   beta * (sigmoid(x) / 2 - sigmoid(-x)), beta * sigmoid(y) / 2);
      case PreferenceLoss::sppo_hard: {
        const T target = 1 / (2 * beta), up = a[i] - target, down = b[i] + target;
        return set(i, up * up + down * down, 2 * up, 2 * down);
      }
      case PreferenceLoss::apo_zero:
        return set(i, sigmoid(-x) + sigmoid(y), -beta * sigmoid(x) * sigmoid(-x),
                   beta * sigmoid(y) * sigmoid(-y));
      case PreferenceLoss::apo_down: {
        const T h = beta * (a[i] - b[i]), slope = beta * sigmoid(h) * sigmoid(-h);
        return set(i, sigmoid(x) + sigmoid(-h), beta * sigmoid(x) * sigmoid(-x) - slope, slope);
      }
      case PreferenceLoss::bco_pair:
        return set(i, -log_sigmoid(x - baseline) - log_sigmoid(baseline - y), -beta * sigmoid(baseline - x),
                   beta * sigmoid(y - baseline));
      default: {
        const Margin<T> m = margin(a[i], b[i], options);
        const Slope<T> loss = margin_loss(m.h, options);
        return set(i, loss.value, loss.derivative * m.by_a, loss.derivative * m.by_b);
      }
    }
  }
};

// Ranks meet ranks: the i-th smallest of one side against the i-th smallest of the other. `left_up` are the
// vectors whose sum's gradient is the loss's derivative, at the left side's places, and so on.
template <typename T>
void sorted_losses(const DpoOptions& options, const std::vector<T>& left, const std::vector<T>& right,
                   std::vector<T>& losses, std::vector<T>& by_left, std::vector<T>& by_right) {
  const size_t n = left.size();
  const std::vector<size_t> l = sorted_order(n, [&](size_t i) { return left[i]; });
  const std::vector<size_t> r = sorted_order(n, [&](size_t i) { return right[i]; });
  const T beta = static_cast<T>(options.beta);
  for (size_t i = 0; i < n; ++i) {
    const Slope<T> loss =
        smoothed_log_loss(beta * (left[l[i]] - right[r[i]]), static_cast<T>(options.label_smoothing));
    losses[i] = loss.value;
    by_left[l[i]] = beta * loss.derivative;
    by_right[r[i]] = -beta * loss.derivative;
  }
}

template <typename T>
std::vector<T> difference(std::span<const T> x, std::span<const T> y) {
  std::vector<T> result(x.begin(), x.end());
  if (!y.empty()) {
    for (size_t i = 0; i < result.size(); ++i) result[i] -= y[i];
  }
  return result;
}

template <typename T>
std::vector<T> negative(std::vector<T> values) {
  for (T& value : values) value = -value;
  return values;
}

template <typename T>
std::vector<T> scaled(std::vector<T> values, T factor) {
  for (T& value : values) value *= factor;
  return values;
}

}  // namespace

std::vector<std::string> preference_loss_names() {
  return kLossNames;
}

PreferenceLoss preference_loss_from_name(const std::string& name) {
  return static_cast<PreferenceLoss>(index_of(name, kLossNames, "preference loss"));
}

std::vector<std::string> divergence_names() {
  return kDivergenceNames;
}

Divergence divergence_from_name(const std::string& name) {
  return static_cast<Divergence>(index_of(name, kDivergenceNames, "divergence"));
}

template <typename T>
PairLosses<T> dpo(const Pairs<T>& pairs, const DpoOptions& options) {
  const size_t n = pairs.chosen.size();
  check(options, n, {pairs.rejected.size()},
        {pairs.reference_chosen.size(), pairs.reference_rejected.size()});
  PairLosses<T> out;
  for (auto* v :
       {&out.losses, &out.d_chosen, &out.d_rejected, &out.d_reference_chosen, &out.d_reference_rejected})
    v->assign(n, T{0});
  const T beta = static_cast<T>(options.beta);
  out.chosen_rewards = scaled(difference(pairs.chosen, pairs.reference_chosen), beta);
  out.rejected_rewards = scaled(difference(pairs.rejected, pairs.reference_rejected), beta);

  const std::span<const T> none;
  const auto reference_chosen = options.reference_free ? none : pairs.reference_chosen;
  const auto reference_rejected = options.reference_free ? none : pairs.reference_rejected;
  if (options.loss == PreferenceLoss::aot) {
    const std::vector<T> zeros(n, T{0});
    const std::vector<T> policy = difference(pairs.chosen, pairs.rejected);
    const std::vector<T> reference =
        reference_chosen.empty() ? zeros : difference(reference_chosen, reference_rejected);
    sorted_losses(options, policy, reference, out.losses, out.d_chosen, out.d_reference_chosen);
    out.d_rejected = negative(out.d_chosen);
    out.d_reference_rejected = negative(out.d_reference_chosen);
  } else {
    Family<T> family{options, out, difference(pairs.chosen, reference_chosen),
                     difference(pairs.rejected, reference_rejected)};
    if (options.loss == PreferenceLoss::aot_pair) {
      sorted_losses(options, family.a, family.b, out.losses, out.d_chosen, out.d_rejected);
    } else {
      const T total = std::accumulate(family.a.begin(), family.a.end(), T{0}) +
                      std::accumulate(family.b.begin(), family.b.end(), T{0});
      const T baseline = options.baseline ? static_cast<T>(*options.baseline)
                                          : beta * total / static_cast<T>(std::max<size_t>(1, 2 * n));
      for (size_t i = 0; i < n; ++i) family.pair(i, baseline);
    }
    out.d_reference_chosen = negative(out.d_chosen);
    out.d_reference_rejected = negative(out.d_rejected);
  }
  if (options.reference_free) {
    std::fill(out.d_reference_chosen.begin(), out.d_reference_chosen.end(), T{0});
    std::fill(out.d_reference_rejected.begin(), out.d_reference_rejected.end(), T{0});
  }
  return out;
}

template PairLosses<float> dpo(const Pairs<float>&, const DpoOptions&);
template PairLosses<double> dpo(const Pairs<double>&, const DpoOptions&);

}  // namespace qkv::losses
