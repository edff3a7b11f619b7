#include "qkv/plan/train_plan.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/registry.h"
#include "qkv/models/score_model.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/weights.h"
#include "qkv/tensor/allocator.h"
#include "qkv/tensor/gemm.h"

namespace qkv {
namespace {

// The program itself, its libraries' buffers and the threads' stacks.
constexpr uint64_t kProgramBytes = uint64_t{48} << 20;

// The configuration with so many layers, whatever its family calls them.
Json with_layers(const Json& config, int64_t layers) {
  Json result = config;
  int64_t before = 0;
  for (const char* key : {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}) {
    if (!result.contains(key) || !result[key].is_number_integer()) continue;
    before = result[key].get<int64_t>();
    result[key] = layers;
  }
  require(before > 0, "plan: expected a number of layers in the model's configuration, found none");
  // Lists with an entry for each layer.
  for (auto& [key, value] : result.items()) {
    if (value.is_array() && static_cast<int64_t>(value.size()) == before)
      value.erase(value.begin() + static_cast<std::ptrdiff_t>(std::min(layers, before)), value.end());
  }
  return result;
}

// Zeros that take no memory: pages that nobody writes to.
std::shared_ptr<const void> zero_pages(uint64_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(memory != MAP_FAILED, "plan: cannot map {} bytes", bytes);
  return {memory, [bytes](const void* p) { ::munmap(const_cast<void*>(p), bytes); }};
}

struct Source {
  std::unique_ptr<Checkpoint> checkpoint;
  ModelConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
};

std::unique_ptr<Model> make(const TuneSettings& s, const Json& config, const std::string& where) {
  return s.kind == TuneKind::reward ? make_score_model(config, where, !is_score_config(config))
                                    : make_model(config, where);
}

// Whether loading copies a matrix out of the file: its rows or columns lie there in another order.
bool is_rearranged(const Placement& at) {
  return at.transposed || at.run > 0 || at.rope_head > 0 || at.values != StoredValues::same;
}

// As load_weights() would have it: the same types in the same places, without the values. Gives the bytes of
// the file that are used where they lie.
uint64_t fill(Model& model, const Source& source, bool trainable) {
  if (trainable) {
    initialize_weights(model, 0, 0.02f);
    return 0;
  }
  uint64_t mapped = 0;
  const std::vector<WeightMapping> mappings = expand(model);
  const StoredNames names(*source.checkpoint, mappings);
  uint64_t largest = 0;
  model.visit("", [&](const std::string&, Tensor& parameter) {
    largest = std::max(largest, 4 * static_cast<uint64_t>(parameter.elements()));
  });
  const std::shared_ptr<const void> zeros = zero_pages(largest);
  size_t index = 0;
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    const WeightMapping& mapping = mappings[index++];
    const StoredTensor& place = names.place(mapping);
    const TensorEntry* entry = source.checkpoint->find(names.actual(place.name));
    const DType type = entry == nullptr ? DType::f32 : entry->type;
    const bool stays =
        parameter.shape().rank() > 1 && !mapping.f32 &&
        (type == DType::f32 || type == DType::bf16 || type == DType::f16 || block_type(type).has_value());
    if (!stays || parameter.shape().cols() % traits(type).block_length != 0) {
      initialize_parameter(name, parameter, model.info().layers, 0, 0.02f);
    } else if (is_rearranged(place.at)) {
      parameter = Tensor::zeros(parameter.shape(), type);
    } else {
      parameter =
          Tensor::borrowed(static_cast<const std::byte*>(zeros.get()), parameter.shape(), type, zeros);
      mapped += parameter.bytes();
    }
  });
  return mapped;
}

// What was measured with some number of layers.
struct Measured {
  int64_t peak = 0, mapped = 0;
};

// The largest of the run's forwards, as far as they are looked at.
std::unique_ptr<MicroBatch> largest_batch(Recipe& recipe, int64_t forwards) {
  constexpr int64_t kMostForwards = 2000;
  std::unique_ptr<MicroBatch> largest;
  for (int64_t i = 0; i < std::min(forwards, kMostForwards); ++i) {
    std::unique_ptr<MicroBatch> batch = recipe.next();
    if (!largest || batch->tokens > largest->tokens) largest = std::move(batch);
  }
  return largest;
}

// What two steps take at most with so many layers; fills in what the plan says about the data.
Measured measure(TuneSettings s, const Source& source, int64_t layers, TrainPlan& plan) {
  Bundle bundle;
  bundle.path = s.model;
  bundle.tokenizer = source.tokenizer;
  bundle.model = make(s, with_layers(*source.config.config, layers), source.config.where);
  Measured result;
  result.mapped = static_cast<int64_t>(fill(*bundle.model, source, !s.with_adapter()));
  s.resume = true;  // an adapter's start is values, not memory
  const TuningWork work = begin_tuning(s, bundle);
  Module& trained = work.adapter != nullptr ? static_cast<Module&>(*work.adapter) : *bundle.model;
  const TrainerConfig loop = s.trainer_config();
  const std::unique_ptr<Optimizer> optimizer = make_optimizer(trained, loop.optimizer);
  const std::unique_ptr<MicroBatch> batch = largest_batch(*work.recipe, s.steps * s.accumulation);
  reset_peak();
  for (int step = 0; step < 2; ++step) {
    for (int64_t i = 0; i < std::min<int64_t>(2, s.accumulation); ++i) backward(work.recipe->loss(*batch, 0));
    optimizer->step(1, 1);
  }
  plan.tokens = batch->tokens;
  plan.steps = s.steps;
  result.peak = static_cast<int64_t>(memory_use().peak);
  return result;
}

}  // namespace

TrainPlan plan_training(TuneSettings s) {
  const auto start = std::chrono::steady_clock::now();
  if (s.dtype == "auto") s.dtype = bf16_products_are_native() ? "bf16" : "f32";
  require(!s.train_files.empty(), "plan train: expected data files (--data), found none");
  if (s.kind == TuneKind::reward) s.modules_to_save.push_back("score");
  Source source;
  source.checkpoint = open_checkpoint(s.model);
  source.config = model_config(*source.checkpoint);
  std::string problem;
  source.tokenizer = checkpoint_tokenizer(*source.checkpoint, problem);
  require(source.tokenizer != nullptr, "{}", problem);

  const std::unique_ptr<Model> whole = make(s, *source.config.config, source.config.where);
  TrainPlan plan;
  plan.layers = whole->info().layers;
  plan.parameters = whole->parameter_count();
  constexpr int64_t kFew = 2, kMore = 4;
  plan.measured_layers = std::min(plan.layers, kMore);
  const Measured more = measure(s, source, plan.measured_layers, plan);
  const Measured few = plan.layers > kMore ? measure(s, source, kFew, plan) : more;
  const auto whole_of = [&](int64_t at_more, int64_t at_few) {
    return static_cast<uint64_t>(at_more +
                                 (plan.layers - plan.measured_layers) * (at_more - at_few) / (kMore - kFew));
  };
  plan.tensor_bytes = whole_of(more.peak, few.peak);
  plan.mapped_bytes = whole_of(more.mapped, few.mapped);
  if (s.kind == TuneKind::distill) plan.mapped_bytes += open_checkpoint(s.teacher)->total_bytes();
  plan.resident_bytes = plan.tensor_bytes + plan.mapped_bytes + kProgramBytes;
  plan.measured_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return plan;
}

}  // namespace qkv
