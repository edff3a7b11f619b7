#include "qkv/models/weights.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/stored_values.h"
#include "qkv/models/weight_memory.h"
#include "qkv/nn/ssm.h"

namespace qkv {
namespace {

uint64_t hash_name(const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a: stable across platforms, unlike std::hash
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ULL;
  return hash;
}

bool ends_with(const std::string& text, std::string_view ending) {
  return text.size() >= ending.size() && std::string_view(text).substr(text.size() - ending.size()) == ending;
}

[[noreturn]] void fail_missing(const Checkpoint& checkpoint, const std::string& wanted, const Shape& shape) {
  std::vector<std::string> names;
  for (const auto& entry : checkpoint.entries()) names.push_back(entry.name);
  fail("{}: tensor '{}' is missing (expected shape {}){}", checkpoint.path(), wanted, shape.str(),
       suggestion(wanted, names));
}

// Whether a tensor's data are part of another's.
bool lies_in(const Tensor& part, const Tensor& whole) {
  return part.raw() >= whole.raw() && part.raw() < whole.raw() + whole.bytes();
}

// Called with every parameter and its stored values, `owned` if they are a copy that nobody else holds;
// undefined for what is optional and absent.
using StoredVisitor =
    FunctionRef<void(const WeightMapping& mapping, Tensor& parameter, const Tensor& values, bool owned)>;

void read_parameters(Model& model, const Checkpoint& checkpoint, StoredVisitor visitor) {
  const std::vector<WeightMapping> mappings = expand(model);
  const StoredNames names(checkpoint, mappings);
  size_t index = 0;
  model.visit("", [&](const std::string&, Tensor& parameter) {
    const WeightMapping& mapping = mappings[index++];
    const StoredTensor& place = names.place(mapping);
    const std::string wanted = names.actual(place.name);
    const TensorEntry* entry = place.name.empty() ? nullptr : checkpoint.find(wanted);
    if (entry == nullptr) {
      require(!place.name.empty() || place.at.optional,
              "{}: parameter '{}' has no tensor in {} checkpoints of {}", checkpoint.path(),
              mapping.parameter, names.naming() == Naming::gguf ? "GGUF" : "Hugging Face",
              model.info().architecture);
      if (!place.at.optional) fail_missing(checkpoint, wanted, place.shape);
      return visitor(mapping, parameter, Tensor(), false);
    }
    require(entry->shape == place.shape, "{}: tensor '{}': expected shape {}, found {}", checkpoint.path(),
            wanted, place.shape.str(), entry->shape.str());
    require(is_floating(entry->type) || is_block(entry->type),
            "{}: tensor '{}': expected floating point, found {}", checkpoint.path(), wanted,
            name(entry->type));
    const Tensor stored = checkpoint.read(wanted);
    const Tensor values = take_parameter(stored, place, mapping.shape);
    visitor(mapping, parameter, values, !lies_in(values, stored));
    if (!lies_in(parameter, stored)) checkpoint.release(wanted);
  });
  tensors_beside_weights(model, checkpoint, mappings, names);
}

// What an optional parameter that the checkpoint lacks is.
Tensor absent_value(Model& model, const WeightMapping& mapping) {
  if (mapping.parameter == "head.weight") {
    Tensor embedding;
    model.visit("", [&](const std::string& name, Tensor& parameter) {
      if (name == "embed.weight") embedding = parameter;
    });
    if (embedding.defined() && embedding.shape() == mapping.shape) return embedding;
  }
  return Tensor::zeros(mapping.shape);
}

// What linear layers and embeddings read as it is.
bool stays_as_stored(DType type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16 || block_type(type).has_value();
}

}  // namespace

void load_weights(Model& model, const Checkpoint& checkpoint, Residence residence) {
  WeightMemory memory(residence == Residence::memory ? checkpoint.total_bytes() : 0, checkpoint.entries().size());
  read_parameters(
      model, checkpoint,
      [&](const WeightMapping& mapping, Tensor& parameter, const Tensor& values, bool owned) {
        if (!values.defined()) {
          parameter = absent_value(model, mapping);
        } else if (residence != Residence::trainable && !mapping.f32 && stays_as_stored(values.dtype())) {
          // Of an embedding that is not the head only a row is read.
          const bool rows_alone = mapping.parameter == "embed.weight" && !model.info().tied_embeddings;
          parameter = values.shape().rank() < 2 || rows_alone ? values : memory.take(values);
        } else {
          parameter = values.dtype() == DType::f32 && !owned ? values.clone() : values.to(DType::f32);
        }
      });
}

void restore_weights(Model& model, const Checkpoint& checkpoint) {
  read_parameters(model, checkpoint,
                  [&](const WeightMapping& mapping, Tensor& parameter, const Tensor& values, bool) {
                    require(values.defined() && values.dtype() == DType::f32,
                            "{}: parameter '{}': expected f32 values, found {}", checkpoint.path(),
                            mapping.parameter, describe(values));
                    parameter.copy_from(values);
                    parameter.mark_modified();
                  });
}

void initialize_parameter(const std::string& name, Tensor& parameter, int64_t layers, uint64_t seed, float standard_deviation) {
  if (parameter.is_placeholder()) parameter = Tensor::empty(parameter.shape());
  if (initialize_ssm_parameter(name, parameter, Rng(seed, hash_name(name)))) return;
  if (parameter.shape().rank() == 1) {
    parameter.fill(ends_with(name, ".bias") ? 0.0f : 1.0f);
    return;
  }
  const bool into_residual = ends_with(name, "attn.out.weight") || ends_with(name, "ssm.out.weight") ||
                             ends_with(name, "mlp.down.weight");
  const float deviation = standard_deviation * (into_residual ? 1.0f / std::sqrt(2.0f * static_cast<float>(layers)) : 1.0f);
  float* data = parameter.data<float>();
  const uint64_t stream = hash_name(name);
  // Blocks of a fixed size, each with its own part of the stream: the same values for any number of threads.
  constexpr int64_t block = 4096;
  const int64_t n = parameter.elements();
  parallel_for((n + block - 1) / block, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      Rng rng = Rng(seed, stream).split(static_cast<uint64_t>(b));
      for (int64_t i = b * block; i < std::min(n, (b + 1) * block); ++i) data[i] = deviation * rng.normal();
    }
  });
}

void initialize_weights(Model& model, uint64_t seed, float standard_deviation) {
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    initialize_parameter(name, parameter, model.info().layers, seed, standard_deviation);
  });
}

void save_tensors(const std::string& directory, const std::vector<std::pair<std::string, Tensor>>& tensors,
                  DType type, uint64_t max_shard_bytes) {
  std::vector<TensorEntry> entries;
  std::unordered_map<std::string, Tensor> by_name;
  for (const auto& [name, tensor] : tensors) {
    TensorEntry entry;
    entry.name = name;
    entry.type = type;
    entry.shape = tensor.shape();
    entries.push_back(entry);
    by_name[name] = tensor.detach();
  }
  write_hf_weights(
      directory, entries, [&](const TensorEntry& entry) { return by_name.at(entry.name).to(type); },
      max_shard_bytes);
}

void save_weights(Model& model, const std::string& directory, DType type, uint64_t max_shard_bytes) {
  const std::vector<WeightMapping> mappings = expand(model);
  std::unordered_map<std::string, Tensor> parameters;
  model.visit("", [&](const std::string& name, Tensor& parameter) { parameters[name] = parameter.detach(); });
  std::unordered_map<std::string, StoredGroup> groups;
  std::vector<TensorEntry> entries;
  for (auto& group : group_by_tensor(mappings, StoredNames(Naming::hugging_face))) {
    entries.push_back({group.name, type, group.shape});
    groups.emplace(group.name, std::move(group));
  }
  write_hf_weights(
      directory, entries,
      [&](const TensorEntry& entry) {
        const StoredGroup& group = groups.at(entry.name);
        Tensor stored = Tensor::empty(group.shape, type);
        for (const WeightMapping* part : group.parts)
          put_parameter(stored, part->hf, parameters.at(part->parameter).to(type));
        return stored;
      },
      max_shard_bytes);
}

}  // namespace qkv
