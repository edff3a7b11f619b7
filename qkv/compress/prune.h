// qkv prune: fewer weights. Unstructured and n:m sparsity make zeros in a model of the same shape; structured
// pruning takes away attention heads, feed-forward channels and layers, and leaves a smaller model of the
// same architecture.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "qkv/compress/layer_walk.h"
#include "qkv/quant/sparsity.h"

namespace qkv {

enum class PruneMethod : uint8_t { magnitude, wanda, sparsegpt };
// Error naming all and the nearest.
PruneMethod prune_method_from_name(const std::string& name);

struct PruneOptions {
  // Weights of linear layers in blocks (not of routers).
  PruneMethod method = PruneMethod::wanda;
  SparsityPattern pattern = {};
  double damping = 0.01;  // sparsegpt
  std::string text = {};  // for Wanda and SparseGPT
  CalibrationOptions calibration = {};
  std::function<void(size_t layer, size_t layers)> progress = {};
};

struct PrunedTensor {
  std::string name;  // of the parameter
  Shape shape;
  double sparsity = 0;
};

struct PruneReport {
  uint64_t bytes_before = 0, bytes = 0;
  int64_t parameters_before = 0, parameters = 0;
  std::vector<PrunedTensor> tensors;                        // with zeros made
  std::vector<int64_t> removed_layers;                      // counted in the original
  int64_t heads = 0, kv_heads = 0, hidden = 0, layers = 0;  // of the result
  std::vector<std::string> notes;
};

// The result has the source's types; block types become f16. Error as quantize_weights().
PruneReport prune_weights(const std::string& input, const std::string& output, const PruneOptions& options);

struct StructureOptions {
  // Shares that are taken away, of the groups of heads that read the same keys, of channels and of layers;
  // rounded down.
  double heads = 0, channels = 0, layers = 0;
  std::string text = {};
  CalibrationOptions calibration = {};
  std::function<void(size_t layer, size_t layers)> progress = {};
};

// Heads and channels by the squared norm of what they add to the residual stream, as many in every layer;
// layers by their block influence, 1 - the mean cosine of what enters and what leaves (ShortGPT: Men et al.,
// arXiv 2403.03853). Error for an architecture whose configuration cannot say what remains.
PruneReport prune_structure(const std::string& input, const std::string& output,
                            const StructureOptions& options);

}  // namespace qkv
