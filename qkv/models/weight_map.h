// Where parameters lie in stored checkpoints. An architecture states one table of patterns (WeightRow);
// expand() makes it concrete for a model: one WeightMapping per parameter. Loading, saving and converting all
// walk these mappings, in both directions, so every transformation here has an exact inverse (values stored
// transformed keep their original bits beside).
//
// The parameter is the hub: Hugging Face tensor <-> parameters <-> GGUF tensor. Models keep projections apart
// (q, k and v are three parameters); fused and stacked stored tensors are described as several parameters
// that each own some rows of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/tensor/shape.h"

namespace qkv {

class Model;

// What a stored value is, compared with the parameter's.
enum class StoredValues : uint8_t {
  same,
  plus_one,   // 1 + w: Gemma's norm gains in GGUF
  minus_exp,  // -exp(w): Mamba's A_log in GGUF
};

// Which rows of a stored matrix belong to one parameter. The stored tensor is seen as (rows, columns) with
// all leading dimensions flattened, after undoing `transposed`.
struct Placement {
  // Stored (inputs, outputs), as GPT-2's Conv1D does; with a `shape` of three dimensions every one of the first
  // dimension's matrices by itself (DeepSeek's keys in GGUF, head by head). Written in plain types only.
  bool transposed = false;
  // The parameter's rows in order are runs of `run` stored rows; run i begins at offset + i * stride. run 0:
  // one run of all rows. q of GPT-NeoX's fused projection: {offset 0, run head_dim, stride 3 * head_dim}.
  int64_t offset = 0, run = 0, stride = 0;
  // Parameters of experts are stacked in one tensor (experts, rows, columns): expert e begins e * rows
  // further down.
  bool stacked = false;
  // > 0: the head size. Inside every head the parameter's halves (i, i + rope_head / 2) are stored as
  // neighbours (2i, 2i + 1): GGUF's order of q and k where its rotary positions turn neighbours.
  int64_t rope_head = 0;
  StoredValues values = StoredValues::same;
  // How the stored tensor's shape is written if it is not simply (rows, columns): dimensions of size 1 that
  // the parameter lacks, e.g. conv1d (D, 1, K). Empty: the parameter's own rank, rows summed over all
  // parameters that share the tensor.
  std::vector<int64_t> shape = {};
  // The stored tensor may be absent: the head is then the embedding, anything else zeros.
  bool optional = false;
};

// One row of an architecture's weight table. In the patterns the first "{}" is the layer, the second the
// expert. Names lack the suffix ".weight" or ".bias" that the parameter's own name ends with; a pattern that
// ends with '!' is the complete stored name without it ("blk.{}.ssm_a!"). An empty pattern: the format has no
// such tensor.
struct WeightRow {
  std::string name;  // of the parameter: "blocks.{}.attn.q"
  std::string hf;    // "model.layers.{}.self_attn.q_proj"
  std::string gguf;  // "blk.{}.attn_q"
  Placement hf_at = {};
  Placement gguf_at = {};
  // Always held as f32, in whatever type it is stored: what is neither the matrix of a linear layer nor an
  // embedding (a convolution's taps, Mamba's A_log). Vectors are so anyway.
  bool f32 = false;
};

// A stored tensor as one parameter sees it.
struct StoredTensor {
  std::string name;  // complete; empty: the format has no such tensor
  Shape shape;       // of the whole stored tensor
  Placement at;      // offset includes the expert's
};

struct WeightMapping {
  std::string parameter;  // "blocks.3.attn.q.weight"
  Shape shape;            // of the parameter
  StoredTensor hf, gguf;
  bool f32 = false;
};

// The mappings of all parameters, in visiting order. Error if a parameter is in no row of the table.
std::vector<WeightMapping> expand(Model& model);

// The stored row that holds row `row` (of `rows`) of a parameter.
int64_t stored_row(const Placement& at, int64_t row, int64_t rows);

}  // namespace qkv
