#include "qkv/models/weights.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/core/rng.h"
#include "qkv/formats/hf_directory.h"

namespace qkv {
namespace {

struct SplitName {
  std::string pattern;  // without the suffix, the layer number replaced by "{}"
  std::string suffix;   // ".weight" or ".bias"
  int64_t layer = 0;
};

// "blocks.3.attn.q.weight" -> {"blocks.{}.attn.q", ".weight", 3}.
SplitName split_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  SplitName result{name.substr(0, dot), name.substr(dot)};
  constexpr std::string_view blocks = "blocks.";
  if (result.pattern.rfind(blocks, 0) == 0) {
    const size_t end = result.pattern.find('.', blocks.size());
    result.layer = std::stoll(result.pattern.substr(blocks.size(), end - blocks.size()));
    result.pattern = std::string(blocks) + "{}" + result.pattern.substr(end);
  }
  return result;
}

uint64_t hash_name(const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a: stable across platforms, unlike std::hash
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ULL;
  return hash;
}

bool ends_with(const std::string& text, std::string_view ending) {
  return text.size() >= ending.size() && std::string_view(text).substr(text.size() - ending.size()) == ending;
}

}  // namespace

std::string hf_name(const Model& model, const std::string& parameter) {
  const SplitName name = split_name(parameter);
  for (const auto& row : model.weight_table()) {
    if (row.name == name.pattern) return numbered(row.hf, name.layer) + name.suffix;
  }
  fail("{}: parameter '{}' is not in the weight table", model.info().model_type, parameter);
}

void load_weights(Model& model, const Checkpoint& checkpoint, Residence residence) {
  std::set<std::string> used;
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    const std::string wanted = hf_name(model, name);
    const TensorEntry* entry = checkpoint.find(wanted);
    if (entry == nullptr) {
      std::vector<std::string> names;
      for (const auto& other : checkpoint.entries()) names.push_back(other.name);
      fail("{}: tensor '{}' is missing (expected shape {}){}", checkpoint.path(), wanted, parameter.shape().str(),
           suggestion(wanted, names));
    }
    require(entry->shape == parameter.shape(), "{}: tensor '{}': expected shape {}, found {}", checkpoint.path(), wanted,
            parameter.shape().str(), entry->shape.str());
    require(entry->type == DType::f32 || entry->type == DType::bf16 || entry->type == DType::f16 || entry->type == DType::f64,
            "{}: tensor '{}': expected f32, bf16, f16 or f64, found {}", checkpoint.path(), wanted, qkv::name(entry->type));
    const Tensor stored = checkpoint.read(wanted);
    const bool as_stored = residence == Residence::inference && parameter.shape().rank() == 2 &&
                           (stored.dtype() == DType::f32 || stored.dtype() == DType::bf16 || stored.dtype() == DType::f16);
    if (as_stored) {
      parameter = stored;
    } else {
      parameter = stored.dtype() == DType::f32 ? stored.clone() : stored.to(DType::f32);
      checkpoint.release(wanted);
    }
    used.insert(wanted);
  });
  for (const auto& entry : checkpoint.entries()) {
    const bool ignorable = ends_with(entry.name, "rotary_emb.inv_freq") || (entry.name == "lm_head.weight" && model.info().tied_embeddings);
    require(used.count(entry.name) > 0 || ignorable, "{}: tensor '{}' {} is not part of {}", checkpoint.path(), entry.name,
            entry.shape.str(), model.info().architecture);
  }
}

void initialize_weights(Model& model, uint64_t seed, float standard_deviation) {
  const float residual = 1.0f / std::sqrt(2.0f * static_cast<float>(model.info().layers));
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    if (parameter.is_placeholder()) parameter = Tensor::empty(parameter.shape());
    if (parameter.shape().rank() == 1) {
      parameter.fill(ends_with(name, ".bias") ? 0.0f : 1.0f);
      return;
    }
    const bool into_residual = ends_with(name, "attn.out.weight") || ends_with(name, "mlp.down.weight");
    const float deviation = standard_deviation * (into_residual ? residual : 1.0f);
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
  });
}

void save_tensors(const std::string& directory, const std::vector<std::pair<std::string, Tensor>>& tensors, DType type,
                  uint64_t max_shard_bytes) {
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
  write_hf_weights(directory, entries, [&](const TensorEntry& entry) { return by_name.at(entry.name).to(type); }, max_shard_bytes);
}

void save_weights(Model& model, const std::string& directory, DType type, uint64_t max_shard_bytes) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  model.visit("", [&](const std::string& name, Tensor& parameter) { tensors.emplace_back(hf_name(model, name), parameter); });
  save_tensors(directory, tensors, type, max_shard_bytes);
}

}  // namespace qkv
