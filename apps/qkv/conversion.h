// What convert and init share: writing a checkpoint with its progress, and saying what was written.
#pragma once

#include <optional>
#include <string>

#include "qkv/codec/codec.h"
#include "qkv/formats/checkpoint.h"

namespace CLI {
class App;
}

namespace qkv {

struct ConversionFlags {
  std::string output, type, shard_size, manifest, codec;
  bool json = false, lossless = false;

  // OUT, --dtype with this help, --lossless, --codec, --max-shard-size, --manifest, --json.
  void add_to(CLI::App& command, const std::string& type_help);
  // --dtype; nothing if it was not given. Error unless f32, bf16 or f16.
  std::optional<DType> dtype() const;
  // --lossless with --codec; nothing if neither was given.
  std::optional<CodecOptions> lossless_codec() const;
  // Refuses what cannot be understood before anything is opened.
  void check() const;
};

// Writes the checkpoint; all floating-point values become `type` if there is one.
void write_checkpoint(const Checkpoint& source, const ConversionFlags& flags, std::optional<DType> type);

}  // namespace qkv
