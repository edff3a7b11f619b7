#include "qkv/models/stored_names.h"

#include <unordered_map>

#include "qkv/core/error.h"

namespace qkv {

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
    StoredNames other(Naming::hugging_face);
    other.removed_ = removed;
    other.added_ = added;
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
