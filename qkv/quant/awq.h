// AWQ (Lin et al., arXiv 2306.00978) and SmoothQuant (Xiao et al., arXiv 2211.10438): input columns are
// multiplied by factors that the layer before is divided by, so that what is hard to round becomes easier and
// the model computes the same.
#pragma once

#include <vector>

#include "qkv/quant/input_statistics.h"
#include "qkv/quant/uniform.h"

namespace qkv {

struct AwqSearch {
  std::vector<float> factors;  // (columns): the weights' columns are multiplied by these
  double ratio = 0;            // mean |x|^ratio; the factors are that divided by sqrt(largest * smallest)
  double loss = 0;
  std::vector<double> losses;  // of the ratios 0, 1 / n, ... (n - 1) / n: mean squared error of the outputs
};
// The factors with which these matrices (all (rows, columns) f32, with the same inputs) change their outputs
// least when rounded. The first of equals.
AwqSearch search_awq_factors(const std::vector<Tensor>& weights, const InputStatistics& inputs,
                             const UniformScheme& scheme, int ratios = 20);

// AWQ's clipping: per row and group (rows, groups) the magnitude to which weights are limited, the largest
// times 1 - i / 20 for i below 10, that leaves the least error of the group's part of the output.
Tensor search_awq_limits(const Tensor& weight, const InputStatistics& inputs, const UniformScheme& scheme);
Tensor limit_groups(const Tensor& weight, const Tensor& limits, const UniformScheme& scheme);

// SmoothQuant's factors: largest |x|^alpha / largest |w|^(1 - alpha) of each column; 1 where a column has no
// input or weight.
std::vector<float> smoothquant_factors(const std::vector<Tensor>& weights, const InputStatistics& inputs,
                                       double alpha);

Tensor multiply_columns(const Tensor& weight, const std::vector<float>& factors);
Tensor divide_columns(const Tensor& weight, const std::vector<float>& factors);

}  // namespace qkv
