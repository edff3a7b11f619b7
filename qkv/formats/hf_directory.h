// Model directories as the Hugging Face libraries lay them out: config.json, generation_config.json and the
// weights: one file or the shards of an index, safetensors or PyTorch or a mix (hf_files.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/formats/checkpoint.h"
#include "qkv/formats/hf_files.h"

namespace qkv {

class HfDirectory final : public Checkpoint {
 public:
  // Opens and checks the configuration and every weight file. Throws Error `[huggingface] <path>: ...` naming
  // a missing shard and the index that wants it, a tensor that the index lists but its shard lacks, and a
  // tensor that is in two shards; tensors of a shard that the index does not list are kept. Shard names must
  // be plain file names.
  explicit HfDirectory(std::string path);
  ~HfDirectory() override;

  std::string_view format_name() const override { return "huggingface"; }
  const Json* config() const override { return config_.get(); }
  const Json* generation_config() const override { return generation_config_.get(); }
  // Configurations, tokenizers and templates, in alphabetical order.
  std::vector<std::string> file_names() const override;
  std::optional<std::string> file(std::string_view name) const override;

  // Of the shards that have checksums.
  bool has_checksums() const override;
  std::vector<std::string> verify() const override;

  // True if the directory has weights that this class reads.
  static bool recognizes(const std::string& path);

 private:
  Tensor read_entry(size_t index) const override;
  void release_entry(size_t index) const override;

  std::unique_ptr<const Json> config_;
  std::unique_ptr<const Json> generation_config_;
  std::vector<std::unique_ptr<Checkpoint>> shards_;
  std::vector<const Checkpoint*> homes_;  // the shard of each entry
};

// The object in `directory`/`file_name`; null if there is no such file.
std::unique_ptr<const Json> load_config_if_present(const std::string& directory,
                                                   const std::string& file_name);

// Writes model.safetensors, or, when the data pass `max_shard_bytes`, model-00001-of-0000N.safetensors ...
// and model.safetensors.index.json. Tensors are put into shards in the order given; one that is larger than
// the limit gets a shard of its own. Each file appears atomically and replaces the weights that the directory
// had: those it did not overwrite are removed at the end. For a directory that appears whole, write under
// AtomicDirectory::path().
void write_hf_weights(const std::string& directory, const std::vector<TensorEntry>& entries,
                      TensorProvider provider, uint64_t max_shard_bytes = 5'000'000'000);

}  // namespace qkv
