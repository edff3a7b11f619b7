// The tokens that are still in the running, in order of their ids, and the filters that thin them out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qkv {

struct Candidate {
  float logit;
  int32_t id;
};

// Every filter keeps at least `min_keep` candidates (top_k excepted, whose point is a number), and the order
// of ids. Of equally good candidates at a filter's edge the lower ids stay, unless said otherwise. None may
// be empty before, and no logit NaN.
class Candidates {
 public:
  // Those of the logits that are not -infinity.
  void assign(std::span<const float> logits);
  // Everything that is no candidate becomes -infinity.
  void write(std::span<float> logits) const;
  std::span<const Candidate> items() const { return items_; }
  size_t size() const { return items_.size(); }
  int32_t likeliest() const;  // the lowest id of equals

  void scale(float temperature);
  // The k likeliest, and those as likely as the k-th (Fan et al., arXiv 1805.04833).
  void keep_top_k(int32_t k);
  // The likeliest until their probability reaches p (Holtzman et al., arXiv 1904.09751).
  void keep_top_p(double p, int32_t min_keep);
  // Those at least p times as likely as the likeliest (Nguyen et al., arXiv 2407.01082).
  void keep_min_p(float p, int32_t min_keep);
  // Those whose surprise is closest to the entropy, until their probability reaches p, and those as close as
  // the last (Meister et al., arXiv 2202.00666).
  void keep_typical(double p, int32_t min_keep);
  // Those at least `epsilon` likely (Hewitt et al., arXiv 2210.15191).
  void keep_epsilon(double epsilon, int32_t min_keep);
  // Those at least min(epsilon, sqrt(epsilon) exp(-entropy)) likely (the same paper).
  void keep_eta(double epsilon, int32_t min_keep);
  // Logits within n standard deviations of the largest (Tang et al., arXiv 2411.07641).
  void keep_top_n_sigma(float n, int32_t min_keep);
  // "Exclude top choices": of those at least `threshold` likely, all but the least likely go.
  void exclude_top_choices(double threshold);
  // Those whose surprise is at most `bits` (Basu et al., arXiv 2007.14966; its second form).
  void keep_unsurprising(double bits);

  // Nats.
  double entropy() const;
  // Bits of surprise of one candidate.
  double surprise(int32_t id) const;
  // The exponent s of Zipf's law over the m likeliest (the first form of the same paper).
  double zipf_exponent(int m) const;
  // The id at `uniform` in [0, 1) of the cumulative distribution in order of ids: near-ties that float noise
  // swaps do not move the draw.
  int32_t draw(double uniform) const;

 private:
  struct Weights {
    double total;  // of exp(logit - top)
    float top;
  };
  Weights weights() const;
  float top() const;
  // Drops what is below the threshold, but leaves the min_keep likeliest.
  void keep_from(float threshold, int32_t min_keep);
  float nth_logit(int64_t n) const;  // the n-th largest, from 1

  std::vector<Candidate> items_;
  mutable std::vector<float> values_;  // scratch
};

}  // namespace qkv
