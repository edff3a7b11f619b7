// Which tensors of a file get another type than most. The rules are llama.cpp's, so that a file of one name
// has the same types and size from either program; they come from measurements of what each kind of matrix
// costs in perplexity.
#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>

#include "qkv/compress/file_types.h"

namespace qkv {
namespace {

enum class Role : uint8_t { embedding, output, query, key, value, attention_output, up, gate, down, other };

Role role_of(const std::string& name) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string::npos; };
  if (name == "output.weight") return Role::output;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") return Role::embedding;
  if (has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight")) return Role::value;
  if (has("attn_k.weight")) return Role::key;
  if (has("attn_q.weight")) return Role::query;
  if (has("attn_output.weight")) return Role::attention_output;
  if (has("ffn_up")) return Role::up;
  if (has("ffn_gate")) return Role::gate;
  if (has("ffn_down")) return Role::down;
  return Role::other;
}

// The number in "blk.12.attn_q.weight"; -1 if there is none.
int64_t layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "blk.";
  int64_t layer = -1;
  if (name.starts_with(kPrefix))
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

// Is the type one of those given?
template <typename... Types>
bool is_any(FileType type, Types... types) {
  return ((type == types) || ...);
}

class Mix {
 public:
  Mix(FileType type, const ModelShape& model, int64_t value_tensors)
      : type_(type), model_(model), value_tensors_(value_tensors), shared_(model.heads_per_kv_head >= 4) {}

  // Tensors come layer by layer.
  DType type_of(const TensorEntry& entry) {
    const Role role = role_of(entry.name);
    const DType base = traits(type_).base;
    if (role == Role::output || (model_.tied && role == Role::embedding))
      return output(base, entry.shape.cols());
    if (type_ == FileType::mxfp4_moe) {
      return entry.shape.rank() > 2 && entry.shape[0] > 1 ? DType::mxfp4 : DType::q8_0;
    }
    if (role == Role::embedding) return embedding(base);
    if (is_any(type_, FileType::iq1_s, FileType::iq1_m, FileType::iq2_xxs, FileType::iq2_xs, FileType::iq2_s,
               FileType::iq2_m)) {
      return of_two_bits(role, base);
    }
    switch (role) {
      case Role::value:
        return value(base, values_++);
      case Role::key:
        return model_.experts == 8 ? DType::q8_0 : query_or_key(base);
      case Role::query:
        return query_or_key(base);
      case Role::down:
        return down(base, model_.experts > 1 ? layer_of(entry.name) : downs_++);
      case Role::attention_output:
        return attention_output(base);
      case Role::gate:
        return gate_or_up(base, model_.experts > 1 ? layer_of(entry.name) : gates_++);
      case Role::up:
        return gate_or_up(base, model_.experts > 1 ? layer_of(entry.name) : ups_++);
      default:
        return base;
    }
  }

 private:
  // The first and last eighth of the layers, and every third between.
  static bool more_bits(int64_t layer, int64_t layers) {
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
  }
  bool falcon() const { return model_.architecture == "falcon"; }

  DType output(DType base, int64_t cols) const {
    if (type_ == FileType::mxfp4_moe || falcon() || cols % traits(base).block_length != 0) return DType::q8_0;
    if (is_any(type_, FileType::iq1_s, FileType::iq1_m, FileType::iq2_xxs, FileType::iq2_xs, FileType::iq2_s,
               FileType::iq2_m, FileType::iq3_xxs)) {
      return DType::q5_k;
    }
    return base == DType::q8_0 ? base : DType::q6_k;
  }

  DType embedding(DType base) const {
    if (is_any(type_, FileType::iq1_s, FileType::iq1_m, FileType::iq2_xxs, FileType::iq2_xs))
      return DType::q2_k;
    if (is_any(type_, FileType::iq2_s, FileType::iq2_m, FileType::iq3_xxs)) return DType::iq3_s;
    if (is_any(type_, FileType::tq1_0, FileType::tq2_0)) return DType::q4_k;
    return base;
  }

  DType of_two_bits(Role role, DType base) {
    const bool larger = is_any(type_, FileType::iq2_s, FileType::iq2_m);
    const DType better = larger ? DType::iq3_s : DType::q2_k;
    switch (role) {
      case Role::value:
        return shared_ || model_.experts >= 4 ? DType::q4_k : better;
      case Role::key:
        return model_.experts == 8 ? DType::q4_k : base;
      case Role::down:
        return downs_++ < model_.layers / 8 ? better : base;
      case Role::attention_output:
        if (model_.experts == 8) return DType::q5_k;
        if (is_any(type_, FileType::iq1_s, FileType::iq1_m)) return DType::iq2_xxs;
        return larger ? DType::iq3_s : base;
      default:
        return base;
    }
  }

  DType value(DType base, int64_t index) const {
    DType type = base;
    switch (type_) {
      case FileType::q2_k:
        type = shared_ ? DType::q4_k : DType::q3_k;
        break;
      case FileType::q2_k_s:
        if (shared_) type = DType::q4_k;
        break;
      case FileType::iq3_xxs:
        type = shared_ ? DType::q4_k : model_.has_importance ? DType::iq3_xxs : DType::iq3_s;
        break;
      case FileType::iq3_xs:
      case FileType::iq3_s:
        if (shared_) type = DType::q4_k;
        break;
      case FileType::iq3_m:
        type = DType::q4_k;
        break;
      case FileType::q3_k_m:
        type = index < 2 ? DType::q5_k : DType::q4_k;
        break;
      case FileType::q3_k_l:
        type = DType::q5_k;
        break;
      case FileType::iq4_nl:
      case FileType::iq4_xs:
        if (shared_) type = DType::q5_k;
        break;
      case FileType::q4_k_m:
      case FileType::q5_k_m:
        if (more_bits(index, value_tensors_)) type = DType::q6_k;
        break;
      case FileType::q4_k_s:
        if (index < 4) type = DType::q5_k;
        break;
      default:
        break;
    }
    // Llama's 80-layer models share a value head among eight queries: the tensor is small.
    const bool large_llama =
        model_.architecture == "llama" && model_.layers == 80 && model_.heads_per_kv_head > 1;
    if (large_llama && (type == DType::q3_k || type == DType::q4_k)) type = DType::q5_k;
    return model_.experts == 8 ? DType::q8_0 : type;
  }

  DType query_or_key(DType base) const {
    if (type_ == FileType::iq3_xs) return DType::iq3_xxs;
    return type_ == FileType::iq3_xxs ? DType::iq2_s : base;
  }

  DType down(DType base, int64_t layer) const {
    const int64_t layers = model_.layers;
    const bool first = layer < layers / 8;
    switch (type_) {
      case FileType::q2_k:
        return DType::q3_k;
      case FileType::q2_k_s:
        return first ? DType::q4_k : base;
      case FileType::iq3_xxs:
        if (model_.has_importance) return base;
        return first ? DType::q4_k : DType::q3_k;
      case FileType::q3_k_m:
        if (layer < layers / 16) return DType::q5_k;
        return !falcon() || more_bits(layer, layers) ? DType::q4_k : DType::q3_k;
      case FileType::iq3_m:
        return first || (model_.experts == 8 && more_bits(layer, layers)) ? DType::q4_k : base;
      case FileType::q3_k_l:
        return falcon() ? DType::q4_k : DType::q5_k;
      case FileType::q4_k_m:
        if (falcon() && layer < layers / 16) return DType::q6_k;
        if (!more_bits(layer, layers)) return base;
        return falcon() ? DType::q5_k : DType::q6_k;
      case FileType::iq4_nl:
      case FileType::iq4_xs:
        return first && !model_.has_importance ? DType::q5_k : base;
      case FileType::q5_k_m:
        return more_bits(layer, layers) ? DType::q6_k : base;
      case FileType::q4_k_s:
        return first && !falcon() ? DType::q5_k : base;
      case FileType::q4_0:
        return first && model_.has_importance ? DType::q4_1 : base;
      case FileType::q5_0:
        return first && model_.has_importance ? DType::q5_1 : base;
      default:
        return base;
    }
  }

  DType attention_output(DType base) const {
    if (falcon()) return type_ == FileType::q3_k_l ? DType::q4_k : base;
    if (model_.experts == 8) {
      return is_any(type_, FileType::q2_k, FileType::iq3_xs, FileType::iq3_xxs, FileType::q3_k_s,
                    FileType::q3_k_m, FileType::iq4_nl, FileType::q4_k_s, FileType::q4_k_m, FileType::iq3_s,
                    FileType::iq3_m, FileType::iq4_xs)
                 ? DType::q5_k
                 : base;
    }
    switch (type_) {
      case FileType::q2_k:
        return DType::q3_k;
      case FileType::iq3_xxs:
        return DType::iq3_s;
      case FileType::q3_k_m:
        return DType::q4_k;
      case FileType::q3_k_l:
        return DType::q5_k;
      case FileType::iq3_m:
        return DType::q4_k;
      default:
        return base;
    }
  }

  DType gate_or_up(DType base, int64_t layer) const {
    const int64_t layers = model_.layers;
    const bool inner = layer >= layers / 8 && layer < 7 * layers / 8;
    return type_ == FileType::iq3_xs && inner ? DType::iq3_xxs : base;
  }

  FileType type_;
  const ModelShape& model_;
  int64_t value_tensors_;
  bool shared_;  // many query heads read one value head
  int64_t values_ = 0, downs_ = 0, gates_ = 0, ups_ = 0;
};

}  // namespace

std::vector<std::optional<DType>> mixed_types(FileType type, const ModelShape& model,
                                              const std::vector<TensorEntry>& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int64_t first = layer_of(tensors[a].name), second = layer_of(tensors[b].name);
    return first != second ? first < second : tensors[a].name < tensors[b].name;
  });
  const int64_t values = std::count_if(tensors.begin(), tensors.end(), [](const TensorEntry& entry) {
    return role_of(entry.name) == Role::value;
  });
  Mix mix(type, model, values);
  std::vector<std::optional<DType>> types(tensors.size());
  const bool plain = !is_block(traits(type).base);
  for (const size_t i : order) {
    if (!is_quantizable(tensors[i].name, tensors[i].shape)) continue;
    types[i] = plain ? traits(type).base : mix.type_of(tensors[i]);
  }
  return types;
}

}  // namespace qkv
