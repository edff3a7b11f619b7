#include "qkv/formats/pytorch_state.h"

#include <algorithm>
#include <array>
#include <optional>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 64;
constexpr size_t kMaximumVisits = 1'000'000;
constexpr size_t kLongestName = 4096;
// Of all names, texts and lists of numbers together, which a small file could repeat without end.
constexpr size_t kMaximumBytes = size_t{128} << 20;

constexpr std::array<std::string_view, 4> kModelKeys = {"state_dict", "model_state_dict", "model", "module"};
constexpr std::array<std::string_view, 2> kWrapperPrefixes = {"module.", "_orig_mod."};

// A list of one type of scalars as a list of the metadata; nothing for any other.
template <typename T>
bool add_list(const PickleSequence& sequence, const std::string& name, Metadata& metadata) {
  std::vector<T> values;
  for (const PickleRef item : sequence.items) {
    const T* value = as<T>(item);
    if (value == nullptr) return false;
    values.push_back(*value);
  }
  metadata.set(name, std::move(values));
  return true;
}

class Walker {
 public:
  Walker(std::string_view where, Metadata& metadata) : where_(where), metadata_(metadata) {}

  // `on_tensor(name, tensor)`; names are absent under keys that cannot be part of one.
  template <typename OnTensor>
  void walk(PickleRef value, const std::optional<std::string>& name, OnTensor&& on_tensor, int depth = 0) {
    if (depth > kMaximumDepth || ++visits_ > kMaximumVisits)
      fail("{}: expected at most {} values in at most {} levels, found more (does it contain itself?)",
           where_, kMaximumVisits, kMaximumDepth);
    if (name && name->size() > kLongestName)
      fail("{}: '{}': expected a name of at most {} bytes, found {}", where_, shown(*name), kLongestName,
           name->size());
    charge(name ? name->size() : 0);
    if (const auto* tensor = as<PickleTensor>(value)) {
      on_tensor(name, *tensor);
    } else if (const auto* dict = as<PickleDict>(value)) {
      for (const auto& [key, item] : dict->items)
        walk(item, joined(name, key_text(key)), on_tensor, depth + 1);
    } else if (const auto* sequence = as<PickleSequence>(value)) {
      if (name && !sequence->items.empty() && is_scalar_list(*sequence, *name)) return;
      for (size_t i = 0; i < sequence->items.size(); ++i)
        walk(sequence->items[i], joined(name, fmt::format("{}", i)), on_tensor, depth + 1);
    } else if (name) {
      add_scalar(value, *name);
    }
  }

 private:
  static std::optional<std::string> key_text(PickleRef key) {
    if (const auto* text = as<std::string>(key)) return *text;
    if (const auto* number = as<int64_t>(key)) return fmt::format("{}", *number);
    return std::nullopt;
  }
  static std::optional<std::string> joined(const std::optional<std::string>& name,
                                           const std::optional<std::string>& key) {
    if (!name || !key) return std::nullopt;
    return name->empty() ? *key : *name + "." + *key;
  }
  void charge(size_t bytes) {
    bytes_ += bytes;
    if (bytes_ > kMaximumBytes)
      fail("{}: expected at most {} bytes of names and lists, found more", where_, kMaximumBytes);
  }
  bool is_scalar_list(const PickleSequence& sequence, const std::string& name) {
    for (const PickleRef item : sequence.items) {
      const auto* text = as<std::string>(item);
      charge(sizeof(int64_t) + (text == nullptr ? 0 : text->size()));
    }
    return add_list<bool>(sequence, name, metadata_) || add_list<int64_t>(sequence, name, metadata_) ||
           add_list<double>(sequence, name, metadata_) || add_list<std::string>(sequence, name, metadata_);
  }
  void add_scalar(PickleRef value, const std::string& name) {
    if (const auto* flag = as<bool>(value)) metadata_.set(name, *flag);
    if (const auto* integer = as<int64_t>(value)) metadata_.set(name, *integer);
    if (const auto* number = as<double>(value)) metadata_.set(name, *number);
    if (const auto* text = as<std::string>(value)) {
      charge(text->size());
      metadata_.set(name, *text);
    }
    if (const auto* known = as<PickleName>(value)) metadata_.set(name, std::string(known->name));
  }

  std::string_view where_;
  Metadata& metadata_;
  size_t visits_ = 0;
  size_t bytes_ = 0;
};

bool holds_tensors(PickleRef value) {
  const auto* dict = as<PickleDict>(value);
  return dict != nullptr && std::any_of(dict->items.begin(), dict->items.end(), [](const auto& item) {
           return as<PickleTensor>(item.second) != nullptr;
         });
}

// The state dict inside a training checkpoint; the root itself if it is none.
PickleRef model_part(PickleRef root) {
  const auto* dict = as<PickleDict>(root);
  if (dict == nullptr || holds_tensors(root)) return root;
  for (const std::string_view key : kModelKeys) {
    for (const auto& [name, value] : dict->items) {
      const auto* text = as<std::string>(name);
      if (text != nullptr && *text == key && holds_tensors(value)) return value;
    }
  }
  return root;
}

// What all names begin with, as far as it says only how the model was wrapped.
std::string common_wrapper(const std::vector<std::pair<std::string, const PickleTensor*>>& tensors) {
  std::string prefix;
  for (bool found = !tensors.empty(); found;) {
    found = false;
    for (const std::string_view wrapper : kWrapperPrefixes) {
      const std::string longer = prefix + std::string(wrapper);
      found = std::all_of(tensors.begin(), tensors.end(), [&](const auto& tensor) {
        return tensor.first.size() > longer.size() && tensor.first.starts_with(longer);
      });
      if (!found) continue;
      prefix = longer;
      break;
    }
  }
  return prefix;
}

}  // namespace

PytorchState pytorch_state(const Pickle& pickle, std::string_view where) {
  PytorchState state;
  state.metadata = Metadata(std::string(where));
  Walker walker(where, state.metadata);
  const auto take = [&](const std::optional<std::string>& name, const PickleTensor& tensor) {
    if (!name) fail("{}: a tensor: expected under a key that is a text or an integer, found another", where);
    state.tensors.emplace_back(name->empty() ? "tensor" : *name, &tensor);
  };
  const PickleRef root = pickle.root();
  const PickleRef model = model_part(root);
  if (model == root) {
    walker.walk(root, "", take);
  } else {
    int64_t others = 0;
    bool taken = false;
    const auto count = [&](const auto&, const PickleTensor&) { ++others; };
    for (const auto& [key, value] : as<PickleDict>(root)->items) {
      const auto* text = as<std::string>(key);
      if (value == model && !taken) {
        taken = true;
        walker.walk(value, "", take);
      } else {
        walker.walk(value, text == nullptr ? std::nullopt : std::optional(*text), count);
      }
    }
    if (others > 0) state.metadata.set("pytorch.other_tensors", others);
  }
  const std::string prefix = common_wrapper(state.tensors);
  if (!prefix.empty()) {
    state.metadata.set("pytorch.prefix", prefix);
    for (auto& [name, tensor] : state.tensors) name.erase(0, prefix.size());
  }
  return state;
}

}  // namespace qkv
