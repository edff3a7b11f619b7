#include "qkv/compress/calibrate.h"

#include <algorithm>
#include <memory>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/models/gguf_conversion.h"
#include "qkv/nn/observed_weight.h"
#include "qkv/nn/pass.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

struct ColumnSums {
  std::vector<double> squares;  // (columns)
  int64_t tokens = 0;

  void add(const Tensor& input) {
    const Tensor x = input.detach().to(DType::f32);
    const int64_t rows = x.rows(), cols = x.cols();
    const float* values = x.data<float>();
    squares.resize(static_cast<size_t>(cols));
    parallel_for(cols, 64, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t c = begin; c < end; ++c) {
          const double v = values[t * cols + c];
          squares[static_cast<size_t>(c)] += v * v;
        }
      }
    });
    tokens += rows;
  }
};

// The layers' sums under the names of GGUF's tensors. Layers that share a tensor and are no experts see the
// same inputs.
std::map<std::string, Importance::Matrix> by_gguf_name(Model& model,
                                                       const std::map<std::string, ColumnSums>& layers) {
  std::map<std::string, Importance::Matrix> matrices;
  for (const WeightMapping& mapping : expand(model)) {
    constexpr std::string_view kWeight = ".weight";
    if (mapping.gguf.name.empty() || !mapping.parameter.ends_with(kWeight)) continue;
    // A transposed matrix has the inputs along its rows, where quantizing weighs nothing.
    if (gguf_wants_f32(mapping.gguf.name, mapping.gguf.shape) || mapping.gguf.at.transposed) continue;
    const auto layer = layers.find(mapping.parameter.substr(0, mapping.parameter.size() - kWeight.size()));
    if (layer == layers.end()) continue;
    const auto cols = static_cast<int64_t>(mapping.shape.cols());
    const bool stacked = mapping.gguf.at.stacked;
    const int64_t experts = stacked ? mapping.gguf.shape[0] : 1;
    const int64_t expert = stacked ? mapping.gguf.at.offset / mapping.gguf.shape[-2] : 0;
    Importance::Matrix& matrix = matrices[mapping.gguf.name];
    matrix.sums.resize(static_cast<size_t>(experts * cols));
    matrix.counts.resize(static_cast<size_t>(experts));
    // An expert that no token chose has no sums.
    matrix.counts[static_cast<size_t>(expert)] = layer->second.tokens;
    if (layer->second.tokens == 0) continue;
    std::transform(layer->second.squares.begin(), layer->second.squares.end(),
                   matrix.sums.begin() + expert * cols, [](double sum) { return static_cast<float>(sum); });
  }
  return matrices;
}

}  // namespace

Importance collect_importance(Model& model, const Tokenizer& tokenizer, std::string_view text,
                              const std::string& dataset, const ImatrixOptions& options,
                              const std::function<void(int64_t done, int64_t total)>& progress) {
  const ModelInfo& info = model.info();
  require(2 <= options.context && options.context <= info.max_positions,
          "{}: expected chunks of 2 to {} tokens (the positions of this model), found {}", dataset,
          info.max_positions, options.context);
  EncodeOptions encode;
  encode.parse_special = false;  // a text is text, whatever it spells
  const std::vector<int32_t> tokens = tokenizer.encode(text, encode);
  const int64_t n = options.context;
  int64_t chunks = static_cast<int64_t>(tokens.size()) / n;
  require(chunks >= 1, "{}: expected at least {} tokens to calibrate with (one chunk), found {}", dataset, n,
          tokens.size());
  if (options.max_chunks > 0) chunks = std::min(chunks, options.max_chunks);

  std::map<std::string, ColumnSums> layers;
  {
    std::vector<std::unique_ptr<InputObservation>> observations;
    model.visit_linears("", [&](const std::string& name, Linear& linear) {
      ColumnSums& sums = layers[name];
      observations.push_back(
          std::make_unique<InputObservation>(linear, [&sums](const Tensor& x) { sums.add(x); }));
    });
    const NoGrad off;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      stop_if_interrupted();
      std::vector<int32_t> inputs(tokens.begin() + chunk * n, tokens.begin() + (chunk + 1) * n);
      if (!tokenizer.prefix_ids().empty()) inputs[0] = tokenizer.prefix_ids()[0];
      Pass pass = Pass::whole({n});
      pass.compute_type = options.compute_type;
      model.forward(inputs, pass);
      if (progress) progress(chunk + 1, chunks);
    }
  }
  Importance importance;
  importance.matrices = by_gguf_name(model, layers);
  require(!importance.matrices.empty(), "{}: expected a model whose layers GGUF has names for",
          info.architecture);
  importance.datasets = {dataset};
  importance.chunk_tokens = n;
  importance.chunks = chunks;
  return importance;
}

}  // namespace qkv
