// GGUF's keys of a decoder ("<architecture>.attention.head_count"), both ways: written from a DecoderConfig,
// read into a config.json. The names and their meaning are llama.cpp's.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "qkv/core/metadata.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/models/decoder.h"
#include "qkv/models/hf_config.h"

namespace qkv {

// Writes every key that says something about this model. Error if GGUF cannot say it.
void write_gguf_keys(const DecoderConfig& config, const std::string& architecture, Metadata& metadata);
// "rope_freqs.weight" of Llama 3's scaling, "rope_factors_{short,long}.weight" of LongRoPE's.
std::vector<std::pair<std::string, Tensor>> gguf_rope_tensors(const DecoderConfig& config);

class GgufKeys {
 public:
  GgufKeys(const Metadata& metadata, const Checkpoint& checkpoint);

  const std::string& architecture() const { return architecture_; }
  // Keys lack the prefix "<architecture>.".
  bool has(const char* key) const;
  int64_t integer(const char* key) const;
  int64_t integer_or(const char* key, int64_t fallback) const;
  double number(const char* key) const;
  double number_or(const char* key, double fallback) const;
  bool boolean_or(const char* key, bool fallback) const;
  bool has_tensor(const std::string& name) const;
  // The stored shape of a tensor; Error if it is missing.
  Shape shape_of(const std::string& name) const;

  // A config.json with the sizes of the model under these names, and whether the head is tied.
  Json sizes(const char* model_type, const char* hf_class, const SizeKeys& names = {}) const;
  // "rope_theta" and "rope_scaling".
  void add_rope(Json& config, double default_theta = 10000) const;

 private:
  Json wavelength_scaling(const Json& config, const std::vector<float>& factors) const;
  std::string full(const char* key) const { return architecture_ + "." + key; }
  const Metadata& metadata_;
  const Checkpoint& checkpoint_;
  std::string architecture_;
};

}  // namespace qkv
