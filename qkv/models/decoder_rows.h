// Makes Architecture rows of a family's reading of config.json and its weight table.
#pragma once

#include <cstddef>

#include "qkv/models/architecture.h"
#include "qkv/models/decoder.h"
#include "qkv/models/gguf_keys.h"

namespace qkv {

// A string as a template argument.
template <size_t N>
struct Name {
  char text[N] = {};
  constexpr Name(const char (&from)[N]) {
    for (size_t i = 0; i < N; ++i) text[i] = from[i];
  }
};

template <DecoderConfig (*read)(const JsonView&), std::vector<WeightRow> (*table)(const DecoderConfig&)>
std::unique_ptr<Model> make_decoder(const JsonView& config) {
  const DecoderConfig decoder = read(config);
  return std::make_unique<Decoder>(decoder, table(decoder), config.json());
}

template <DecoderConfig (*read)(const JsonView&), Name gguf>
void decoder_to_gguf(const JsonView& config, Metadata& metadata) {
  write_gguf_keys(read(config), gguf.text, metadata);
}

// Factors of rotary frequencies, which GGUF keeps as tensors.
template <DecoderConfig (*read)(const JsonView&)>
std::vector<std::pair<std::string, Tensor>> decoder_gguf_tensors(const JsonView& config) {
  return gguf_rope_tensors(read(config));
}

}  // namespace qkv
