// What engine tests generate with: a vocabulary of bytes, a small random Llama, and a model that recites.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/engine/engine.h"
#include "qkv/models/registry.h"
#include "qkv/models/weights.h"

namespace qkv::test {

// Ids 0 to 255 are bytes, 256 ends a text.
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kEnd = 256;
  ByteTokenizer() {
    for (int32_t id = 0; id < 256; ++id) {
      Entry& byte = entry(id);
      byte.bytes = std::string(1, static_cast<char>(id));
      byte.surface = "<" + std::to_string(id) + ">";
    }
    Entry& end = entry(kEnd);
    end.bytes = end.surface = "<end>";
    end.special = true;
    index_entries();
    set_eos_id(kEnd);
  }
  std::string_view kind() const override { return "bytes"; }
  std::string to_json() const override { return "{}"; }

 protected:
  void encode_text(std::string_view text, const EncodeOptions&, std::vector<int32_t>& ids) const override {
    for (const char byte : text) ids.push_back(static_cast<uint8_t>(byte));
  }
  TokenizerFiles model_files() const override { return {}; }
};

inline std::vector<int32_t> bytes(std::string_view text) {
  return ByteTokenizer().encode(text, {.add_special = false});
}

// Weights large enough that different contexts give different tokens.
inline std::unique_ptr<Model> small_llama(uint64_t seed = 7) {
  auto model = make_model({{"model_type", "llama"},
                           {"vocab_size", 257},
                           {"hidden_size", 32},
                           {"intermediate_size", 64},
                           {"num_hidden_layers", 2},
                           {"num_attention_heads", 4},
                           {"num_key_value_heads", 2},
                           {"max_position_embeddings", 96}},
                          "small llama");
  initialize_weights(*model, seed, 0.4f);
  return model;
}

// After p tokens it gives script[p], whatever they were. Past the end: NaN.
class Reciter : public Model {
 public:
  explicit Reciter(std::vector<int32_t> script, int64_t max_positions = 1000) : script_(std::move(script)) {
    info_.vocabulary = 257;
    info_.channels = 1;
    info_.max_positions = max_positions;
  }
  const ModelInfo& info() const override { return info_; }
  Tensor forward(const std::vector<int32_t>& tokens, const Pass& pass) const override {
    Tensor hidden = Tensor::empty({static_cast<int64_t>(tokens.size()), 1});
    for (size_t i = 0; i < tokens.size(); ++i)
      hidden.data<float>()[i] = static_cast<float>(pass.positions[i] + 1);
    for (size_t s = 0; s < pass.states.size(); ++s) {
      pass.states[s]->length += pass.sequences.offsets[s + 1] - pass.sequences.offsets[s];
    }
    return hidden;
  }
  Tensor logits(const Tensor& hidden, Activations) const override {
    Tensor result = Tensor::zeros({hidden.rows(), info_.vocabulary});
    for (int64_t row = 0; row < hidden.rows(); ++row) {
      const auto position = static_cast<size_t>(hidden.data<float>()[row]);
      float* values = result.data<float>() + row * info_.vocabulary;
      if (position < script_.size()) {
        values[script_[position]] = 10;
      } else {
        values[0] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    return result;
  }
  const Tensor& head() const override { return head_; }
  SequenceState make_state(const CacheOptions&) const override { return {}; }
  uint64_t state_bytes(const CacheOptions&, int64_t, int64_t) const override { return 0; }
  using Model::make_state;
  std::vector<WeightRow> weight_table() const override { return {}; }
  Json hf_config() const override { return Json::object(); }
  void visit(const std::string&, const ParameterVisitor&) override {}

 private:
  std::vector<int32_t> script_;
  ModelInfo info_;
  Tensor head_;
};

inline Request greedy(std::vector<int32_t> prompt, int64_t max_new_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampler.temperature = 0;
  request.max_new_tokens = max_new_tokens;
  return request;
}

}  // namespace qkv::test
