#include "qkv/models/stored_names.h"

#include <algorithm>
#include <array>
#include <set>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/models/registry.h"

namespace qkv {
namespace {

// Tensors of any checkpoint that say nothing the configuration does not.
constexpr std::array<std::string_view, 5> kIgnored = {"rotary_emb.inv_freq", "rope_freqs.weight",
                                                      "rope_factors_long.weight", "rope_factors_short.weight",
                                                      "embeddings.position_ids"};

bool is_ignored(const Model& model, std::string_view stored) {
  const auto ends = [&](std::string_view ending) { return stored.ends_with(ending); };
  if (std::any_of(kIgnored.begin(), kIgnored.end(), ends)) return true;
  const Architecture* architecture = architecture_of(model);
  return architecture != nullptr &&
         std::any_of(architecture->ignored.begin(), architecture->ignored.end(), ends);
}

// Names of the head, which checkpoints may hold though it is the embedding.
std::set<std::string> tied_head_names(const Model& model) {
  std::set<std::string> names;
  if (!model.info().tied_embeddings) return names;
  for (const auto& row : model.weight_table()) {
    if (row.name == "head") names.insert({row.hf + ".weight", row.gguf + ".weight"});
  }
  return names;
}

}  // namespace

StoredNames::StoredNames(const Checkpoint& checkpoint, const std::vector<WeightMapping>& mappings) {
  size_t hf = 0, gguf = 0;
  for (const auto& mapping : mappings) {
    hf += checkpoint.find(mapping.hf.name) != nullptr ? 1 : 0;
    gguf += checkpoint.find(mapping.gguf.name) != nullptr ? 1 : 0;
  }
  if (gguf > hf) {
    naming_ = Naming::gguf;
    return;
  }
  // The head has the same name in a base model and outside it, so some names can be there though the prefix
  // is not: the prefix that finds most wins, none of equals.
  size_t most = hf;
  const auto consider = [&](const std::string& removed, const std::string& added) {
    const StoredNames other(Naming::hugging_face, removed, added);
    size_t found = 0;
    for (const auto& mapping : mappings)
      found += checkpoint.find(other.actual(mapping.hf.name)) != nullptr ? 1 : 0;
    if (found <= most) return;
    most = found;
    removed_ = removed;
    added_ = added;
  };
  if (most < mappings.size()) {
    for (const auto& mapping : mappings) {
      const std::string& name = mapping.hf.name;
      if (name.empty() || checkpoint.find(name) != nullptr) continue;
      const size_t dot = name.find('.');
      if (dot != std::string::npos && checkpoint.find(name.substr(dot + 1)) != nullptr)
        consider(name.substr(0, dot + 1), "");
      for (const auto& entry : checkpoint.entries()) {
        const size_t prefix = entry.name.find('.');
        if (prefix != std::string::npos && entry.name.compare(prefix + 1, std::string::npos, name) == 0) {
          consider("", entry.name.substr(0, prefix + 1));
          break;
        }
      }
      if (most > hf) break;
    }
  }
  if (most > 0 || mappings.empty()) return;
  fail("{}: expected tensors such as '{}' (Hugging Face) or '{}' (GGUF), found {}", checkpoint.path(),
       mappings[0].hf.name, mappings[0].gguf.name,
       checkpoint.entries().empty() ? "none"
                                    : fmt::format("'{}' and {} others", checkpoint.entries()[0].name,
                                                  checkpoint.entries().size() - 1));
}

std::string StoredNames::actual(const std::string& name) const {
  if (!removed_.empty() && name.starts_with(removed_)) return name.substr(removed_.size());
  return added_ + name;
}

std::vector<std::string> tensors_beside_weights(const Model& model, const Checkpoint& checkpoint,
                                                const std::vector<WeightMapping>& mappings,
                                                const StoredNames& names) {
  std::set<std::string> used;
  for (const auto& mapping : mappings) used.insert(names.actual(names.place(mapping).name));
  const std::set<std::string> tied = tied_head_names(model);
  std::vector<std::string> beside;
  for (const auto& entry : checkpoint.entries()) {
    if (used.contains(entry.name)) continue;
    require(tied.contains(entry.name) || is_ignored(model, entry.name),
            "{}: tensor '{}' {} is not part of {}", checkpoint.path(), entry.name, entry.shape.str(),
            model.info().architecture);
    beside.push_back(entry.name);
  }
  return beside;
}

std::vector<StoredGroup> group_by_tensor(const std::vector<WeightMapping>& mappings,
                                         const StoredNames& names) {
  std::vector<StoredGroup> groups;
  std::unordered_map<std::string, size_t> index;
  for (const auto& mapping : mappings) {
    const StoredTensor& place = names.place(mapping);
    if (place.name.empty()) continue;
    const auto [it, is_new] = index.emplace(place.name, groups.size());
    if (is_new) groups.push_back({place.name, place.shape, {}});
    groups[it->second].parts.push_back(&mapping);
  }
  return groups;
}

}  // namespace qkv
