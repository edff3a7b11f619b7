// Reading the .bin files of llama2.c: a header of integers, then the weights of a Llama model in a fixed
// order. Three layouts are in use: the first one without any mark ("legacy"), version 1 (f32) and version 2
// (int8 in groups, each with an f32 scale). Source: https://github.com/karpathy/llama2.c, export.py, run.c
// and runq.c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/mapped_file.h"
#include "qkv/formats/checkpoint.h"

namespace qkv {

struct Llama2cHeader {
  int version = 0;  // 0 is the legacy layout
  int64_t dim = 0, hidden_dim = 0, layers = 0, heads = 0, kv_heads = 0, vocabulary = 0, context = 0;
  bool tied = true;        // the output matrix is the embedding
  int64_t group_size = 0;  // elements per scale; 0: the weights are f32
  uint64_t bytes = 0;      // of the header
};

// Where a tensor lies and what has to be done to it.
struct Llama2cPlace {
  uint64_t offset = 0;        // from the start of the file
  uint64_t scale_offset = 0;  // of its f32 scales; 0 if it is f32
  int64_t rope_heads = 0;     // heads whose rows are to be reordered; 0 if none
};

struct Llama2cLayout {
  Llama2cHeader header;
  std::vector<TensorEntry> entries;  // Hugging Face's names and shapes, f32, in the order of their data
  std::vector<Llama2cPlace> places;  // of each entry
};

// The size of a file that begins with this header; 0 if the sizes in it do not go together or pass 2^64
// bytes.
uint64_t llama2c_file_bytes(std::span<const std::byte> header);

// A version mark, or, for the legacy layout that has none, a header that predicts the file's size to the
// byte.
bool looks_like_llama2c(std::span<const std::byte> file);

// Reads the header and lays out the tensors. Throws Error `[llama2.c] <where>: ...` unless the file has
// exactly the size that the header asks for.
Llama2cLayout parse_llama2c(std::span<const std::byte> file, std::string_view where);

// The values of a tensor as a Hugging Face checkpoint has them: dequantized, and the rows of query and key
// projections from llama2.c's interleaved order of rotary pairs (2 i, 2 i + 1) to (i, i + head_dim / 2).
// `values` has room for all. Throws Error `[llama2.c] <where>: ...` for a scale that is no number from 0 up.
void read_llama2c_tensor(std::span<const std::byte> file, const Llama2cLayout& layout, size_t index,
                         std::span<float> values, std::string_view where);

// A plain LlamaForCausalLM: Hugging Face's names, config() with the architecture's values.
class Llama2cFile final : public Checkpoint {
 public:
  explicit Llama2cFile(std::string path);
  ~Llama2cFile() override;

  std::string_view format_name() const override { return "llama2.c"; }
  const Json* config() const override { return config_.get(); }
  const Llama2cHeader& header() const { return layout_.header; }

 private:
  Tensor read_entry(size_t index) const override;
  void release_entry(size_t index) const override;

  std::shared_ptr<const MappedFile> file_;
  Llama2cLayout layout_;
  std::unique_ptr<const Json> config_;
};

}  // namespace qkv
