#include "qkv/nn/moe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Indices of the k largest of `scores`, best first; the lower index where they are equal.
void append_top(const float* scores, int n, int k, std::vector<int32_t>& chosen) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int32_t a, int32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
  chosen.insert(chosen.end(), order.begin(), order.begin() + k);
}

// Scores outside the best groups become minus infinity.
void keep_best_groups(const RouterConfig& config, std::vector<float>& scores) {
  const int size = config.experts / config.groups;
  std::vector<float> group_scores;
  for (int g = 0; g < config.groups; ++g) {
    std::vector<float> group(scores.begin() + g * size, scores.begin() + (g + 1) * size);
    std::sort(group.begin(), group.end(), std::greater<>());
    group_scores.push_back(config.groups_by_top_two && size > 1 ? group[0] + group[1] : group[0]);
  }
  std::vector<int32_t> kept;
  append_top(group_scores.data(), config.groups, config.top_groups, kept);
  for (int e = 0; e < config.experts; ++e) {
    if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) scores[static_cast<size_t>(e)] = kNever;
  }
}

// The k experts of every row of probabilities (T, experts), by their scores for choosing.
std::vector<int32_t> choose(const RouterConfig& config, const Tensor& probabilities,
                            const Tensor& correction) {
  std::vector<int32_t> chosen;
  for (int64_t t = 0; t < probabilities.rows(); ++t) {
    const float* row = probabilities.data<float>() + t * config.experts;
    std::vector<float> scores(row, row + config.experts);
    if (correction.defined()) {
      for (int e = 0; e < config.experts; ++e) scores[static_cast<size_t>(e)] += correction.data<float>()[e];
    }
    if (config.groups > 1) keep_best_groups(config, scores);
    append_top(scores.data(), config.experts, config.top_k, chosen);
  }
  return chosen;
}

// The best expert left, weighted by a softmax over those left whose logits come close to its own; then the
// next.
Routing route_sparsely(const RouterConfig& config, const Tensor& logits) {
  const int64_t tokens = logits.rows(), n = config.experts;
  std::vector<std::vector<int32_t>> taken(static_cast<size_t>(tokens));
  std::vector<Tensor> weights;  // (T, 1) each
  for (int i = 0; i < config.top_k; ++i) {
    Tensor mask = Tensor::zeros({tokens, n});
    std::vector<int32_t> best;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = logits.data<float>() + t * n;
      std::vector<float> left(row, row + n);
      for (const int32_t e : taken[static_cast<size_t>(t)]) left[static_cast<size_t>(e)] = kNever;
      append_top(left.data(), config.experts, 1, best);
      const float largest = left[static_cast<size_t>(best.back())];
      for (int64_t e = 0; e < n; ++e) {
        const float scale = std::max(std::abs(row[e]), largest);
        const bool close =
            left[static_cast<size_t>(e)] != kNever && (largest - row[e]) / scale <= 2 * config.jitter;
        if (!close && e != best.back()) mask.data<float>()[t * n + e] = kNever;
      }
      taken[static_cast<size_t>(t)].push_back(best.back());
    }
    weights.push_back(
        ops::reshape(ops::gather_cols(ops::softmax(ops::add(logits, mask)), best), {tokens, 1}));
  }
  Routing routing;
  for (const auto& row : taken) routing.experts.insert(routing.experts.end(), row.begin(), row.end());
  routing.weights = ops::concat_cols(weights);
  return routing;
}

}  // namespace

Routing route(const RouterConfig& config, const Tensor& logits, const Tensor& correction) {
  Routing routing;
  if (config.score == RouterConfig::Score::sparse_mixer) {
    routing = route_sparsely(config, logits);
  } else {
    const Tensor scores = config.score == RouterConfig::Score::softmax
                              ? ops::softmax(logits)
                              : ops::activation(logits, Activation::sigmoid);
    routing.experts = choose(config, scores, correction);
    routing.weights = ops::reshape(ops::gather_cols(scores, routing.experts), {logits.rows(), config.top_k});
  }
  if (config.normalize) routing.weights = ops::normalize_rows(routing.weights);
  if (config.scale != 1) routing.weights = ops::scale(routing.weights, config.scale);
  return routing;
}

Tensor load_balancing_loss(const std::vector<Tensor>& router_logits, int top_k) {
  const Tensor probabilities = ops::softmax(ops::concat_rows(router_logits));  // (layers * T, experts)
  const int64_t rows = probabilities.rows(), n = probabilities.cols();
  std::vector<int32_t> chosen;
  for (int64_t r = 0; r < rows; ++r)
    append_top(probabilities.data<float>() + r * n, static_cast<int>(n), top_k, chosen);
  std::vector<float> share(static_cast<size_t>(n), 0.0f);
  for (const int32_t e : chosen) share[static_cast<size_t>(e)] += 1.0f / static_cast<float>(rows);
  Tensor factors = Tensor::empty({rows, n});
  for (int64_t r = 0; r < rows; ++r) std::copy(share.begin(), share.end(), factors.data<float>() + r * n);
  return ops::scale(ops::sum(ops::multiply(probabilities, factors)),
                    static_cast<float>(n) / static_cast<float>(rows));
}

MixtureOfExperts::MixtureOfExperts(const MoeConfig& config)
    : config_(config.router), router_(config.expert.channels, config.router.experts, false) {
  const RouterConfig& r = config.router;
  require(r.experts > 0 && 0 < r.top_k && r.top_k <= r.experts,
          "experts: expected 1 to {} per token, found {}", r.experts, r.top_k);
  require(r.groups <= 1 || (r.experts % r.groups == 0 && 0 < r.top_groups && r.top_groups <= r.groups &&
                            r.top_k <= r.top_groups * (r.experts / r.groups)),
          "experts: {} of {} groups of {} experts cannot give {} per token", r.top_groups, r.groups,
          r.experts, r.top_k);
  if (r.correction) correction_ = Tensor::zeros({r.experts});
  for (int e = 0; e < r.experts; ++e) experts_.push_back(std::make_unique<Mlp>(config.expert));
  if (config.shared_hidden > 0) {
    MlpConfig shared = config.expert;
    shared.hidden = config.shared_hidden;
    shared_.emplace(shared);
    if (config.shared_gate) shared_gate_.emplace(config.expert.channels, 1, false);
  }
}

Tensor MixtureOfExperts::run_experts(const Tensor& x, const Routing& routing, const Pass& pass) const {
  const int64_t tokens = x.rows(), k = config_.top_k;
  std::vector<std::vector<int64_t>> choices(experts_.size());  // of each expert: indices into routing.experts
  for (size_t i = 0; i < routing.experts.size(); ++i) {
    choices[static_cast<size_t>(routing.experts[i])].push_back(static_cast<int64_t>(i));
  }
  std::vector<int64_t> grouped;                                  // tokens, expert after expert
  std::vector<int64_t> places(static_cast<size_t>(tokens * k));  // of each choice in `grouped`
  for (const auto& of_expert : choices) {
    for (const int64_t i : of_expert) {
      places[static_cast<size_t>(i)] = static_cast<int64_t>(grouped.size());
      grouped.push_back(i / k);
    }
  }
  const Tensor inputs = tokens == 1 ? x : ops::select_rows(x, grouped);
  std::vector<Tensor> outputs;
  int64_t begin = 0;
  for (size_t e = 0; e < choices.size(); ++e) {
    const auto n = static_cast<int64_t>(choices[e].size());
    if (n == 0) continue;
    outputs.push_back(experts_[e]->forward(tokens == 1 ? x : ops::slice_rows(inputs, begin, begin + n), pass));
    begin += n;
  }
  return ops::combine_rows(ops::concat_rows(outputs), places, routing.weights);
}

Tensor MixtureOfExperts::forward(const Tensor& x, const Pass& pass) const {
  const Tensor logits = ops::cast(router_.forward(x, pass), DType::f32);  // (T, experts)
  if (pass.router_logits != nullptr) pass.router_logits->push_back(logits);
  Tensor y = x.rows() == 0 ? x : run_experts(x, route(config_, logits, correction_), pass);
  if (!shared_) return y;
  Tensor shared = shared_->forward(x, pass);
  if (shared_gate_) {
    std::vector<int64_t> rows(static_cast<size_t>(x.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    const Tensor gate =
        ops::activation(ops::cast(shared_gate_->forward(x, pass), DType::f32), Activation::sigmoid);  // (T, 1)
    shared = ops::combine_rows(shared, rows, gate);
  }
  return ops::add(y, shared);
}

void MixtureOfExperts::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  router_.visit(prefix + "router.", visitor);
  if (correction_.defined()) visitor(prefix + "correction.bias", correction_);
  for (size_t e = 0; e < experts_.size(); ++e)
    experts_[e]->visit(prefix + "experts." + std::to_string(e) + ".", visitor);
  if (shared_) shared_->visit(prefix + "shared.", visitor);
  if (shared_gate_) shared_gate_->visit(prefix + "shared_gate.", visitor);
}

void MixtureOfExperts::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  router_.visit_linears(prefix + "router.", visitor);
  for (size_t e = 0; e < experts_.size(); ++e)
    experts_[e]->visit_linears(prefix + "experts." + std::to_string(e) + ".", visitor);
  if (shared_) shared_->visit_linears(prefix + "shared.", visitor);
  if (shared_gate_) shared_gate_->visit_linears(prefix + "shared_gate.", visitor);
}

}  // namespace qkv
