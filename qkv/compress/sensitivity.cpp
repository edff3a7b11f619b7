#include "qkv/compress/sensitivity.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "qkv/compress/gradient_walk.h"
#include "qkv/compress/stored_model.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/models/stored_values.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

constexpr std::string_view kWeight = ".weight", kEmbedding = "embed.weight", kHead = "head.weight";
// Tokens that the head is measured on: its divergence varies little from one to the next, and a large
// vocabulary is many products.
constexpr int64_t kHeadTokens = 1024;
constexpr int64_t kLogits = int64_t{1} << 23;  // at a time

// For every row of two matrices their dot product, added to `sums`.
void add_row_products(const Tensor& a, const Tensor& b, std::vector<double>& sums) {
  const int64_t rows = a.rows(), cols = a.cols();
  const float *x = a.data<float>(), *y = b.data<float>();
  sums.resize(static_cast<size_t>(rows));
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < cols; ++c) sum += double{x[r * cols + c]} * y[r * cols + c];
      sums[static_cast<size_t>(r)] += sum;
    }
  });
}

Tensor difference(const Tensor& a, const Tensor& b) {
  Tensor result = Tensor::empty(a.shape());
  const float *x = a.data<float>(), *y = b.data<float>();
  float* d = result.data<float>();
  parallel_for(a.elements(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) d[i] = x[i] - y[i];
  });
  return result;
}

// g . D x of every token, summed up in squares: of tokens, and of sequences.
struct Moments {
  double tokens = 0, sequences = 0;

  // `products` of all tokens of the walk, or of some of them (experts), whose sequences are not known.
  void add(const std::vector<double>& products, const std::vector<int64_t>& lengths) {
    size_t at = 0;
    double total = 0;
    for (const double product : products) total += product * product;
    tokens += total;
    int64_t all = 0;
    for (const int64_t length : lengths) all += length;
    if (static_cast<int64_t>(products.size()) != all) {
      sequences += total;
      return;
    }
    for (const int64_t length : lengths) {
      double sum = 0;
      for (int64_t i = 0; i < length; ++i) sum += products[at++];
      sequences += sum * sum;
    }
  }
};

}  // namespace

struct Sensitivity::Impl {
  const Checkpoint& source;
  const QuantizePlan& plan;
  const QuantizeOptions& quantize;
  Decoder& model;
  std::vector<WeightMapping> mappings;
  std::map<std::string, std::vector<const WeightMapping*>> parts;  // of GGUF's tensors
  std::map<std::string, Linear*> linears;                          // by parameter
  GradientWalk walk;

  Impl(const Checkpoint& from, const QuantizePlan& of, const QuantizeOptions& options, Decoder& decoder,
       const TokenSequences& sequences, uint64_t seed)
      : source(from),
        plan(of),
        quantize(options),
        model(decoder),
        mappings(expand(decoder)),
        walk(decoder, sequences, seed) {
    for (const auto& mapping : mappings) parts[mapping.gguf.name].push_back(&mapping);
    model.visit_linears(
        "", [&](const std::string& name, Linear& linear) { linears[name + std::string(kWeight)] = &linear; });
  }

  const std::vector<const WeightMapping*>& parts_of(const TensorCosts& costs) {
    return parts[plan.tensors[costs.tensor].name];
  }
  bool has_part(const TensorCosts& costs, std::string_view parameter) {
    const auto& all = parts_of(costs);
    return std::any_of(all.begin(), all.end(),
                       [&](const WeightMapping* part) { return part->parameter == parameter; });
  }
  bool is_head(const TensorCosts& costs) {
    return has_part(costs, kHead) || (model.info().tied_embeddings && has_part(costs, kEmbedding));
  }

  // Puts another value in place of a parameter; gives what puts the old one there again.
  std::function<void()> exchange(const std::string& parameter, Tensor value) {
    if (const auto found = linears.find(parameter); found != linears.end()) {
      Linear* linear = found->second;
      const auto before = std::make_shared<std::unique_ptr<Weight>>(
          linear->exchange_weight(std::make_unique<DenseWeight>(std::move(value))));
      return [linear, before] { linear->set_weight(std::move(*before)); };
    }
    const auto put = [this, parameter](const Tensor& tensor) {
      Tensor old;
      model.visit("", [&](const std::string& name, Tensor& at) {
        if (name == parameter) old = std::exchange(at, tensor);
      });
      return old;
    };
    return [put, before = put(value)] { put(before); };
  }

  // Runs `body` with the tensor's parameters replaced.
  template <typename Body>
  void with_values(const TensorCosts& costs, const Tensor& values, const Body& body) {
    std::vector<std::function<void()>> restore;
    struct Restore {
      std::vector<std::function<void()>>& actions;
      ~Restore() {
        for (const auto& action : actions) action();
      }
    } at_the_end{restore};
    for (const WeightMapping* part : parts_of(costs))
      restore.push_back(exchange(part->parameter, take_parameter(values, part->gguf, part->shape)));
    body();
  }

  // The layer whose linear layers read the tensor; -1: none.
  int64_t layer_of_tensor(const TensorCosts& costs) {
    for (const WeightMapping* part : parts_of(costs)) {
      if (linears.count(part->parameter) > 0) return layer_of(part->parameter);
    }
    return -1;
  }

  void set_costs(TensorCosts& costs, const std::vector<Moments>& moments) {
    double ratios = 0, count = 0;
    for (const Moments& moment : moments) {
      if (moment.tokens <= 0) continue;
      ratios += moment.sequences / moment.tokens;
      ++count;
    }
    const double factor = count > 0 ? ratios / count : 1.0;
    for (size_t t = 0; t < moments.size(); ++t)
      costs.types[t].cost += 0.5 * factor * moments[t].tokens / static_cast<double>(walk.tokens());
    costs.measured = true;
  }

  void measure_linears(TensorCosts& costs, const std::map<std::string, const LayerTrace*>& traces) {
    const NoGrad off;
    const TensorValues values = values_of(source, plan, quantize, costs.tensor);
    std::vector<Moments> moments(costs.types.size());
    for (size_t t = 0; t < costs.types.size(); ++t) {
      stop_if_interrupted();
      const Tensor after = values.after(costs.types[t].type);
      costs.types[t].error = values.relative_error(after);
      std::vector<double> together;  // of parts that see all tokens: their outputs change at once
      for (const WeightMapping* part : parts_of(costs)) {
        const auto trace = traces.find(part->parameter);
        if (trace == traces.end()) continue;
        const LayerTrace& seen = *trace->second;
        const Tensor change = difference(take_parameter(after, part->gguf, part->shape),
                                         take_parameter(values.before, part->gguf, part->shape));
        const Tensor outputs = ops::linear(seen.inputs, change);  // (T, N)
        if (seen.inputs.rows() == walk.tokens()) {
          add_row_products(outputs, seen.gradients, together);
        } else {
          std::vector<double> own;
          add_row_products(outputs, seen.gradients, own);
          moments[t].add(own, walk.lengths());
        }
      }
      moments[t].add(together, walk.lengths());
    }
    set_costs(costs, moments);
  }

  // The embedding's rows as what enters the first layer, the head by what it makes of what leaves the last.
  void measure_vocabulary(TensorCosts& costs) {
    const NoGrad off;
    const TensorValues values = values_of(source, plan, quantize, costs.tensor);
    const bool embeds = has_part(costs, kEmbedding), is_the_head = is_head(costs);
    std::vector<Moments> moments(costs.types.size());
    const int64_t rows = std::min(kHeadTokens, walk.tokens());
    std::vector<int64_t> chosen(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) chosen[static_cast<size_t>(i)] = i * walk.tokens() / rows;
    const Tensor hidden = ops::select_rows(walk.hidden(), chosen);
    const int64_t chunk = std::max<int64_t>(1, kLogits / model.info().vocabulary);
    for (size_t t = 0; t < costs.types.size(); ++t) {
      stop_if_interrupted();
      TypeCost& type = costs.types[t];
      const Tensor after = values.after(type.type);
      type.error = values.relative_error(after);
      if (type.error == 0) continue;
      Tensor embedded;
      if (embeds) {
        with_values(costs, after, [&] { embedded = walk.embedded(); });
        std::vector<double> products;
        add_row_products(difference(embedded, walk.entering(0)), walk.gradients(), products);
        moments[t].add(products, walk.lengths());
      }
      if (!is_the_head) continue;
      double sum = 0;
      for (int64_t begin = 0; begin < rows; begin += chunk) {
        const Tensor some = hidden.row_view(begin, std::min(rows, begin + chunk));
        const Tensor before = model.logits(some);
        Tensor changed;
        with_values(costs, after, [&] { changed = model.logits(some); });
        sum += sum_of_divergences(changed, before);
      }
      type.cost += sum / static_cast<double>(rows);
    }
    set_costs(costs, moments);
  }
};

Sensitivity::Sensitivity(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& quantize,
                         Decoder& model, const TokenSequences& sequences, uint64_t seed)
    : impl_(std::make_unique<Impl>(source, plan, quantize, model, sequences, seed)) {}

Sensitivity::~Sensitivity() = default;

void Sensitivity::measure(std::vector<TensorCosts>& all, const CostProgress& progress) {
  Impl& self = *impl_;
  require(self.walk.left() == self.walk.layers(), "sensitivity: expected to be measured once");
  size_t done = 0;
  const auto count = [&] {
    if (progress) progress(++done, all.size());
  };
  while (self.walk.left() > 0) {
    const std::vector<LayerTrace> traces = self.walk.step();
    std::map<std::string, const LayerTrace*> by_parameter;
    for (const LayerTrace& trace : traces) by_parameter[trace.name + std::string(kWeight)] = &trace;
    for (TensorCosts& costs : all) {
      if (self.layer_of_tensor(costs) != static_cast<int64_t>(self.walk.left())) continue;
      self.measure_linears(costs, by_parameter);
      count();
    }
  }
  double cost_per_error = 0;
  int64_t measured = 0;
  for (TensorCosts& costs : all) {
    if (self.has_part(costs, kEmbedding) || self.is_head(costs)) {
      self.measure_vocabulary(costs);
      count();
    }
    for (const TypeCost& type : costs.types) {
      if (!costs.measured || type.error <= 0) continue;
      cost_per_error += type.cost / type.error;
      ++measured;
    }
  }
  for (TensorCosts& costs : all) {
    if (costs.measured) continue;
    const TensorValues values = values_of(self.source, self.plan, self.quantize, costs.tensor);
    for (TypeCost& type : costs.types) {
      stop_if_interrupted();
      type.error = values.relative_error(values.after(type.type));
      type.cost = measured > 0 ? type.error * cost_per_error / static_cast<double>(measured) : type.error;
    }
    count();
  }
}

void Sensitivity::probe(TensorCosts& costs, size_t type, int64_t tokens) {
  Impl& self = *impl_;
  if (!costs.measured || self.is_head(costs)) return;
  const int64_t layer = std::max<int64_t>(0, self.layer_of_tensor(costs));
  TypeCost& chosen = costs.types.at(type);
  if (chosen.cost <= 0) return;  // as it is
  size_t sequences = 0;
  for (int64_t rows = 0; sequences < self.walk.lengths().size() && (rows == 0 || rows < tokens); ++sequences)
    rows += self.walk.lengths()[sequences];
  const TensorValues values = values_of(self.source, self.plan, self.quantize, costs.tensor);
  double divergence = 0;
  self.with_values(costs, values.after(chosen.type), [&] {
    divergence =
        self.walk.divergence(static_cast<size_t>(layer), sequences, self.has_part(costs, kEmbedding));
  });
  costs.predicted = chosen.cost;
  costs.probed = divergence;
  costs.probed_type = type;
  const double factor = divergence / chosen.cost;
  for (TypeCost& other : costs.types) other.cost *= factor;
}

double Sensitivity::probe_operations(size_t tensors, int64_t tokens) const {
  // On average half of the layers, twice the head.
  return static_cast<double>(tensors) * static_cast<double>(std::min(tokens, impl_->walk.tokens())) * 2.0 *
         static_cast<double>(impl_->model.matrix_parameter_count());
}

}  // namespace qkv
