// Every differentiable op on one page. Shapes: T tokens (rows, packed over sequences), C channels, V vocabulary.
// Activations are f32 or bf16; parameters and their gradients are f32 masters (a bf16 activation meets a bf16 copy of the
// weight, cached until the optimizer writes it) or, for inference, any floating type. Each op: ops/<file>.cpp, forward
// beside backward; the plain double-precision reference each is tested against is in tests/support/reference_ops.h.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "qkv/kernels/kernels.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/tensor.h"

namespace qkv::ops {

// ---- products (ops/linear.cpp) ----

// y (T, N) = x (T, K) w^T (N, K) + bias (N) or none. dx = dy w, dw = dy^T x, dbias = sum of dy's rows.
// A frozen w may be of any floating or block type: its rows are widened on their way into the product.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias = {});
// dx (T, K) = dy (T, N) w alone, off the tape; w as above.
Tensor linear_backward_input(const Tensor& dy, const Tensor& w);
// y (M, N) = a b, with a (M, K) or its transpose stored (K, M), likewise b.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);

// ---- elementwise (ops/elementwise.cpp) ----

Tensor add(const Tensor& a, const Tensor& b);       // same shapes
Tensor multiply(const Tensor& a, const Tensor& b);  // same shapes
Tensor scale(const Tensor& x, float factor);
Tensor activation(const Tensor& x, Activation kind);
// f(gate) * up: SwiGLU (silu) and GeGLU (gelu_*), Shazeer, arXiv 2002.05202. The output is recomputed, not kept, for backward.
Tensor gated(const Tensor& gate, const Tensor& up, Activation kind);
// GELU as ggml's CPU code computes it: the tanh form, looked up by and stored as a 16-bit float. Off the tape; for
// comparing with llama.cpp.
Tensor ggml_gelu(const Tensor& x);
// Keeps each element with probability 1 - p and divides by it. The mask is a function of (seed, stream, element index).
Tensor dropout(const Tensor& x, float p, uint64_t seed, uint64_t stream);
// Limits every element to [-limit, limit]; the gradient passes where nothing was cut.
Tensor clamp(const Tensor& x, float limit);
// cap * tanh(x / cap): Gemma 2, arXiv 2408.00118.
Tensor softcap(const Tensor& x, float cap);
// To another floating dtype.
Tensor cast(const Tensor& x, DType type);

// ---- norms (ops/norm.cpp); outputs are recomputed, not kept, for backward ----

// w, bias: (C), undefined, or (G, C): row r of x then takes row r % G of them (heads with gains of their own).
// x / rms(x) * (w + gain_offset).
Tensor rms_norm(const Tensor& x, const Tensor& w, float eps, float gain_offset = 0);
Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& bias, float eps);

// ---- position (ops/rope.cpp) ----

struct RopeTable {
  Tensor cos, sin;  // f32 (T, rotary_dim / 2): the angles of this pass's tokens, already scaled
  int64_t head_dim = 0, rotary_dim = 0;
  int64_t offset = 0;        // the first rotated dimension of a head
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + rotary_dim / 2), counted from offset
};
// x (T, heads * head_dim): rotates every head. The gradient is the rotation back.
Tensor rope(const Tensor& x, const RopeTable& table);

// ---- attention (ops/attention.cpp) ----

// Sequences of a packed batch: sequence s is tokens [offsets[s], offsets[s + 1]).
struct PackedSequences {
  std::vector<int64_t> offsets;  // starts with 0, ends with T
  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
};
// Flash attention over whole sequences: q (T, n_heads * qk_dim), k (T, n_kv_heads * qk_dim), v (T, n_kv_heads * v_dim) ->
// (T, n_heads * v_dim). No score matrix is ever stored; memory grows linearly with T.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const PackedSequences& sequences, const AttentionSpec& spec);
// One sequence's new queries against its cache, off the tape: q (n_q, n_heads * qk_dim); k, v: (n_k, ...) of which the last
// n_q rows are the queries' own. With one key/value head the rows of v may be longer than v_dim: the rest is not read.
// Writes out (n_q, n_heads * v_dim).
void attend_cached(const Tensor& q, const Tensor& k, const Tensor& v, Tensor& out, const AttentionSpec& spec);

// ---- state spaces (ops/conv1d.cpp, ops/scan.cpp, ops/ssd.cpp) ----
//
// These mix along the tokens of each sequence and never across two. With `states` (off the tape), one f32 tensor per
// sequence, a sequence goes on from its state and leaves the new one there; without, each starts from zeros.

// Causal depthwise convolution: y[t, c] = f(bias[c] + sum over k of w[c, k] x[t - K + 1 + k, c]) with f SiLU or the identity;
// x (T, C), w (C, K), bias (C) or undefined. States (K - 1, C): the last inputs. The output is recomputed, not kept.
Tensor causal_conv1d(const Tensor& x, const Tensor& w, const Tensor& bias, const PackedSequences& sequences, bool silu,
                     const std::vector<Tensor>& states = {});

struct ScanInputs {
  Tensor u, delta;    // (T, D)
  Tensor a;           // (D, N), negative: rates of decay
  Tensor b, c;        // (T, groups * N); channel d uses group d / (D / groups)
  Tensor skip;        // (D) or undefined
  Tensor z;           // (T, D) or undefined: gate
  Tensor delta_bias;  // (D) or undefined
};
struct ScanOptions {
  int64_t groups = 1;
  bool softplus = true;  // of delta + delta_bias
};
// Selective scan (Mamba: Gu & Dao, arXiv 2312.00752): with d = softplus(delta + delta_bias), h[t] = exp(d[t] a) h[t - 1] +
// d[t] b[t] u[t] per channel and y[t] = (c[t] . h[t] + skip u[t]) silu(z[t]), (T, D). States (N, D). Backward keeps the state
// of every 64th token and makes those between again.
Tensor selective_scan(const ScanInputs& in, const PackedSequences& sequences, const ScanOptions& options = {},
                      const std::vector<Tensor>& states = {});

struct SsdInputs {
  Tensor x;        // (T, heads * P)
  Tensor dt;       // (T, heads)
  Tensor a;        // (heads), negative
  Tensor b, c;     // (T, groups * N); head h uses group h / (heads / groups)
  Tensor skip;     // (heads) or undefined
  Tensor dt_bias;  // (heads) or undefined
};
struct SsdOptions {
  int64_t groups = 1;
  bool softplus = true;  // of dt + dt_bias
  float least = 0, most = std::numeric_limits<float>::infinity();  // steps are limited to this range
};
// Mamba-2's state-space dual form (Dao & Gu, arXiv 2405.21060): with d = softplus(dt + dt_bias) per head, h[t] = exp(d[t] a)
// h[t - 1] + d[t] b[t] x[t]^T and y[t] = c[t] h[t] + skip x[t], (T, heads * P). States (heads, N, P). Chunks of 96 tokens are
// matrix products with the state passed between them, which is what backward keeps; few tokens that go on from a state are
// taken one by one.
Tensor ssd(const SsdInputs& in, const PackedSequences& sequences, const SsdOptions& options = {},
           const std::vector<Tensor>& states = {});

// -exp(a_log), f32: Mamba's rates from their trained logarithm.
Tensor decay_rates(const Tensor& a_log);

// ---- vocabulary (ops/embedding.cpp, ops/cross_entropy.cpp) ----

// (T, C) = rows `ids` of table (V, C), which may be of any floating or block type. Error naming the id and V if one is out of range.
Tensor embedding(const std::vector<int32_t>& ids, const Tensor& table, DType type = DType::f32);

constexpr int32_t kIgnore = -100;  // a target that does not count

struct CrossEntropyOptions {
  float label_smoothing = 0;
  float z_loss = 0;    // adds z_loss * logsumexp^2
  float softcap = 0;   // logits = softcap * tanh(logits / softcap) first
  float logit_scale = 1;
  int64_t chunk_rows = 0;  // tokens whose logits exist at a time; 0: chosen from V
};
// Sum over counted targets of cross-entropy of h w^T (h (T, C), w (V, C)) in f32, one element. Logits exist only a chunk of
// rows at a time: never (T, V). Gradients are computed in the same pass while the logits are there. `weights` (empty or T):
// a factor per token. `bias` (V) or none is added to the products first.
Tensor linear_cross_entropy(const Tensor& h, const Tensor& w, const std::vector<int32_t>& targets,
                            const CrossEntropyOptions& options = {}, const std::vector<float>& weights = {},
                            const Tensor& bias = {});
// log p(targets[t]) for every row (f32, (T)); 0 where ignored. Chunked likewise; backward recomputes a chunk's logits.
Tensor linear_log_probs(const Tensor& h, const Tensor& w, const std::vector<int32_t>& targets,
                        const CrossEntropyOptions& options = {}, const Tensor& bias = {});
// The same loss on logits (T, V) that exist already.
Tensor cross_entropy(const Tensor& logits, const std::vector<int32_t>& targets, const CrossEntropyOptions& options = {});

// ---- rows and columns (ops/softmax.cpp, ops/shape.cpp) ----

Tensor softmax(const Tensor& x);      // over the last dimension
Tensor log_softmax(const Tensor& x);  // over the last dimension
// x[t, columns[t]] (T), or with k columns for every row, row by row, (T, k).
Tensor gather_cols(const Tensor& x, const std::vector<int32_t>& columns);
Tensor normalize_rows(const Tensor& x);  // x / its sum over the last dimension
Tensor sum(const Tensor& x);          // all elements -> (1), f32
Tensor mean(const Tensor& x);         // all elements -> (1), f32
Tensor reshape(const Tensor& x, Shape shape);
Tensor slice_rows(const Tensor& x, int64_t begin, int64_t end);
Tensor slice_cols(const Tensor& x, int64_t begin, int64_t end);
// Columns cut into pieces of these widths, which sum up to x's.
std::vector<Tensor> split_cols(const Tensor& x, const std::vector<int64_t>& widths);
Tensor concat_rows(const std::vector<Tensor>& parts);
Tensor concat_cols(const std::vector<Tensor>& parts);
// (T, heads * (a + b)): every head of x (T, heads * a) followed by the row of `shared` (T, b), whose gradient is the sum
// over heads (ops/heads.cpp).
Tensor append_to_heads(const Tensor& x, const Tensor& shared, int64_t heads);
Tensor select_rows(const Tensor& x, const std::vector<int64_t>& rows);  // rows may repeat; dx accumulates
// What select_rows took apart, put together (ops/combine_rows.cpp): y (T, C) = sum over j of weights (T, k)[t, j] times
// row rows[t * k + j] of x (N, C), each of which is taken at most once. The weights are f32.
Tensor combine_rows(const Tensor& x, const std::vector<int64_t>& rows, const Tensor& weights);

}  // namespace qkv::ops
