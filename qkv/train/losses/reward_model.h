// The reward model's loss of pairs of scores (Bradley & Terry 1952; Ouyang et al., arXiv 2203.02155; Llama
// 2's margin, arXiv 2307.09288; centering: Eisenstein et al., arXiv 2312.09244):
//   -log sigmoid(chosen - rejected - margin) + centering (chosen + rejected)^2
#pragma once

#include <span>
#include <vector>

namespace qkv::losses {

template <typename T>
struct RewardLosses {
  std::vector<T> losses, d_chosen, d_rejected;  // gradients of the sum of the losses
};

// `margins`: one per pair, or empty.
template <typename T>
RewardLosses<T> reward_model(std::span<const T> chosen, std::span<const T> rejected,
                             std::span<const T> margins = {}, double centering = 0);

}  // namespace qkv::losses
