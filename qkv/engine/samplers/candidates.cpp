#include "qkv/engine/samplers/candidates.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace qkv {
namespace {

constexpr float kFiltered = -std::numeric_limits<float>::infinity();

// Likelier first, of equals the lower id.
bool precedes(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

double weight_of(const Candidate& candidate, float top) {
  return std::exp(static_cast<double>(candidate.logit - top));
}

}  // namespace

void Candidates::assign(std::span<const float> logits) {
  items_.clear();
  items_.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] != kFiltered) items_.push_back({logits[id], static_cast<int32_t>(id)});
  }
}

void Candidates::write(std::span<float> logits) const {
  std::fill(logits.begin(), logits.end(), kFiltered);
  for (const Candidate& item : items_) logits[static_cast<size_t>(item.id)] = item.logit;
}

int32_t Candidates::likeliest() const {
  return std::min_element(items_.begin(), items_.end(), precedes)->id;
}

float Candidates::top() const {
  float largest = items_.front().logit;
  for (const Candidate& item : items_) largest = std::max(largest, item.logit);
  return largest;
}

Candidates::Weights Candidates::weights() const {
  Weights result{0, top()};
  for (const Candidate& item : items_) result.total += weight_of(item, result.top);
  return result;
}

float Candidates::nth_logit(int64_t n) const {
  values_.clear();
  for (const Candidate& item : items_) values_.push_back(item.logit);
  const auto nth = values_.begin() + (std::min<int64_t>(n, static_cast<int64_t>(values_.size())) - 1);
  std::nth_element(values_.begin(), nth, values_.end(), std::greater<>());
  return *nth;
}

void Candidates::keep_from(float threshold, int32_t min_keep) {
  if (min_keep > 1) threshold = std::min(threshold, nth_logit(min_keep));
  threshold = std::min(threshold, top());
  std::erase_if(items_, [&](const Candidate& item) { return item.logit < threshold; });
}

void Candidates::scale(float temperature) {
  for (Candidate& item : items_) item.logit /= temperature;
}

void Candidates::keep_top_k(int32_t k) {
  if (static_cast<size_t>(k) < items_.size()) keep_from(nth_logit(k), 1);
}

void Candidates::keep_top_p(double p, int32_t min_keep) {
  const Weights all = weights();
  // A heap, not a sort: mostly a few tokens carry the probability.
  std::vector<Candidate> heap = items_;
  const auto comes_later = [](const Candidate& a, const Candidate& b) { return precedes(b, a); };
  std::make_heap(heap.begin(), heap.end(), comes_later);
  double above = 0;  // probability of the tokens kept so far
  Candidate last{};
  for (int32_t kept = 0; !heap.empty() && (above < p || kept < min_keep); ++kept) {
    std::pop_heap(heap.begin(), heap.end(), comes_later);
    last = heap.back();
    heap.pop_back();
    above += weight_of(last, all.top) / all.total;
  }
  std::erase_if(items_, [&](const Candidate& item) { return precedes(last, item); });
}

void Candidates::keep_min_p(float p, int32_t min_keep) {
  keep_from(top() + std::log(p), min_keep);
}

void Candidates::keep_typical(double p, int32_t min_keep) {
  const Weights all = weights();
  const double log_total = std::log(all.total), mean_surprise = entropy();
  const auto distance = [&](const Candidate& item) {
    return std::abs(log_total - static_cast<double>(item.logit - all.top) - mean_surprise);
  };
  std::vector<std::pair<double, double>> by_distance;  // and probability
  for (const Candidate& item : items_) {
    by_distance.emplace_back(distance(item), weight_of(item, all.top) / all.total);
  }
  std::sort(by_distance.begin(), by_distance.end());
  double sum = 0;
  double furthest = 0;
  int32_t kept = 0;
  for (const auto& [far, probability] : by_distance) {
    if (sum >= p && kept >= min_keep) break;
    furthest = far;
    sum += probability;
    ++kept;
  }
  std::erase_if(items_, [&](const Candidate& item) { return distance(item) > furthest; });
}

void Candidates::keep_epsilon(double epsilon, int32_t min_keep) {
  const Weights all = weights();
  keep_from(static_cast<float>(all.top + std::log(epsilon * all.total)), min_keep);
}

void Candidates::keep_eta(double epsilon, int32_t min_keep) {
  keep_epsilon(std::min(epsilon, std::sqrt(epsilon) * std::exp(-entropy())), min_keep);
}

void Candidates::keep_top_n_sigma(float n, int32_t min_keep) {
  double mean = 0, square = 0;
  for (const Candidate& item : items_) mean += item.logit;
  mean /= static_cast<double>(items_.size());
  for (const Candidate& item : items_) square += (item.logit - mean) * (item.logit - mean);
  const double deviation = std::sqrt(square / static_cast<double>(items_.size()));
  keep_from(static_cast<float>(top() - n * deviation), min_keep);
}

void Candidates::exclude_top_choices(double threshold) {
  const Weights all = weights();
  const double limit = threshold * all.total;
  const auto is_top = [&](const Candidate& item) { return weight_of(item, all.top) >= limit; };
  const Candidate* least = nullptr;
  for (const Candidate& item : items_) {
    if (is_top(item) && (least == nullptr || precedes(*least, item))) least = &item;
  }
  if (least == nullptr) return;
  const Candidate stays = *least;
  std::erase_if(items_, [&](const Candidate& item) { return is_top(item) && item.id != stays.id; });
}

void Candidates::keep_unsurprising(double bits) {
  const Weights all = weights();
  keep_from(static_cast<float>(all.top + std::log(all.total) - bits * std::log(2.0)), 1);
}

double Candidates::entropy() const {
  const Weights all = weights();
  double expected = 0;  // of logit - top
  for (const Candidate& item : items_) {
    const double weight = weight_of(item, all.top);
    if (weight > 0) expected += weight * static_cast<double>(item.logit - all.top);
  }
  return std::log(all.total) - expected / all.total;
}

double Candidates::surprise(int32_t id) const {
  const Weights all = weights();
  const auto found = std::lower_bound(items_.begin(), items_.end(), id,
                                      [](const Candidate& item, int32_t wanted) { return item.id < wanted; });
  return (std::log(all.total) - static_cast<double>(found->logit - all.top)) / std::log(2.0);
}

double Candidates::zipf_exponent(int m) const {
  std::vector<Candidate> sorted = items_;
  const auto count = static_cast<std::ptrdiff_t>(std::min(sorted.size(), static_cast<size_t>(m)));
  std::partial_sort(sorted.begin(), sorted.begin() + count, sorted.end(), precedes);
  double products = 0, squares = 0;
  for (std::ptrdiff_t i = 0; i + 1 < count; ++i) {
    const double t = std::log(static_cast<double>(i + 2) / static_cast<double>(i + 1));
    const double b =
        static_cast<double>(sorted[static_cast<size_t>(i)].logit - sorted[static_cast<size_t>(i) + 1].logit);
    products += t * b;
    squares += t * t;
  }
  return squares > 0 ? products / squares : 0;
}

int32_t Candidates::draw(double uniform) const {
  const Weights all = weights();
  const double target = uniform * all.total;
  double sum = 0;
  for (const Candidate& item : items_) {
    sum += weight_of(item, all.top);
    if (sum > target) return item.id;
  }
  return items_.back().id;
}

}  // namespace qkv
