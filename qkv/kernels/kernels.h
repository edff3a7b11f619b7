// The table of numeric kernels: pure functions on raw pointers that know nothing of Tensor, threads or memory. Each
// instruction set fills one table (kernels/isa/*.cpp); dispatch picks one per process, outside all loops.
//
// Conventions: every kernel is single-threaded and handles the rows or elements it is given, so that callers split work
// over threads. `T` is the storage type (float or bf16); arithmetic and reductions are in float. Outputs may alias an
// input only where "in place" is said. Strides are in elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "qkv/kernels/blocks.h"
#include "qkv/kernels/scalar_types.h"
#include "qkv/kernels/ssm_kernels.h"

namespace qkv {

enum class Activation : uint8_t { silu, gelu_erf, gelu_tanh, quick_gelu, relu, relu2, sigmoid };

// One head's view of attention: what does not depend on the storage type.
struct AttentionSpec {
  int n_heads = 0;         // query heads
  int n_kv_heads = 0;      // key/value heads; query head h reads kv head h / (n_heads / n_kv_heads)
  int qk_dim = 0;          // size of a query or key head
  int v_dim = 0;           // size of a value or output head
  float scale = 1;         // multiplies q.k
  bool causal = true;      // query i (of n_q) sees keys j <= i + n_k - n_q: masks are aligned bottom-right
  int64_t window = 0;      // > 0: and only keys j > i + n_k - n_q - window
  float softcap = 0;       // > 0: s = softcap * tanh(s / softcap), before masking (Gemma 2)
  const float* alibi_slopes = nullptr;  // (n_heads) or null: s -= slope * (i + n_k - n_q - j), after scaling
};

// One sequence: pointers to its first token. Token t of q is at q + t * q_stride, head h at + h * qk_dim; likewise k and v
// (kv heads) and out (n_heads * v_dim per token). lse is (n_heads, n_q) float: log-sum-exp of each row's scores.
template <typename T>
struct AttentionSequence {
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  T* out = nullptr;
  float* lse = nullptr;
  int64_t n_q = 0, n_k = 0;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0;
};

// What backward needs beside the forward's tensors. dk and dv belong to one kv head and are float whatever the storage
// type: rows of many queries and of a group's query heads are summed in them.
template <typename T>
struct AttentionGradients {
  const T* dout = nullptr;  // laid out as out
  T* dq = nullptr;          // laid out as q
  float* dk = nullptr;      // key t of the kv head at + t * dk_stride, qk_dim elements
  float* dv = nullptr;      // value t of the kv head at + t * dv_stride, v_dim elements
  int64_t dk_stride = 0, dv_stride = 0;
};

// Settings of one AdamW step (Loshchilov & Hutter, arXiv 1711.05101): decoupled decay, bias corrections precomputed.
struct AdamWStep {
  float lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  float bias_correction1 = 1;  // 1 - beta1^t
  float bias_correction2 = 1;  // 1 - beta2^t
  float grad_scale = 1;        // multiplies the gradient first (clipping)
};

template <typename T>
struct TypedKernels {
  // y[i] = a[i] + b[i]; in place allowed.
  void (*add)(const T* a, const T* b, T* y, int64_t n);
  // y[i] = a[i] * b[i]; in place allowed.
  void (*multiply)(const T* a, const T* b, T* y, int64_t n);
  // y[i] = s * x[i]; in place allowed.
  void (*scale)(const T* x, float s, T* y, int64_t n);
  // out[c] += sum over rows of x (rows, cols): bias gradients.
  void (*sum_rows)(const T* x, float* out, int64_t rows, int64_t cols);
  // y (rows, cols) = x + bias (cols); in place allowed.
  void (*add_bias)(const T* x, const float* bias, T* y, int64_t rows, int64_t cols);

  void (*activation)(Activation kind, const T* x, T* y, int64_t n);
  // dx = f'(x) * dy.
  void (*activation_backward)(Activation kind, const T* x, const T* dy, T* dx, int64_t n);
  // y = f(gate) * up: SwiGLU, GeGLU (Shazeer, arXiv 2002.05202).
  void (*gated)(Activation kind, const T* gate, const T* up, T* y, int64_t n);
  void (*gated_backward)(Activation kind, const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t n);

  // y = x * rstd * w, rstd = 1/sqrt(mean(x^2) + eps) per row (Zhang & Sennrich, arXiv 1910.07467). w null: ones.
  // rstd (rows) may be null.
  void (*rms_norm)(const T* x, const float* w, T* y, float* rstd, int64_t rows, int64_t cols, float eps);
  // dx from dy; dw (cols) is accumulated into unless null.
  void (*rms_norm_backward)(const T* dy, const T* x, const float* w, const float* rstd, T* dx, float* dw, int64_t rows,
                            int64_t cols);
  // y = (x - mean) * rstd * w + b (Ba et al., arXiv 1607.06450). w and b may be null; mean and rstd (rows) may be null.
  void (*layer_norm)(const T* x, const float* w, const float* b, T* y, float* mean, float* rstd, int64_t rows, int64_t cols,
                     float eps);
  // dw and db (cols) are accumulated into unless null.
  void (*layer_norm_backward)(const T* dy, const T* x, const float* w, const float* mean, const float* rstd, T* dx, float* dw,
                              float* db, int64_t rows, int64_t cols);

  // Rotates pairs of the first `rotary_dim` elements of every head by the row's angles; the rest is copied (Su et al.,
  // arXiv 2104.09864). cos, sin: (rows, rotary_dim / 2). interleaved: pairs (2i, 2i+1), else (i, i + rotary_dim / 2).
  // direction +1 rotates, -1 rotates back (the gradient). In place allowed.
  void (*rope)(const T* x, T* y, const float* cos, const float* sin, int64_t rows, int64_t heads, int64_t head_dim,
               int64_t rotary_dim, int64_t x_stride, int64_t y_stride, bool interleaved, float direction);

  // y = softmax(x) over each row; in place allowed.
  void (*softmax)(const T* x, T* y, int64_t rows, int64_t cols);
  // dx = y * (dy - sum(dy * y)).
  void (*softmax_backward)(const T* y, const T* dy, T* dx, int64_t rows, int64_t cols);
  // y = x - logsumexp(x) over each row.
  void (*log_softmax)(const T* x, T* y, int64_t rows, int64_t cols);
  // dx = dy - exp(y) * sum(dy).
  void (*log_softmax_backward)(const T* y, const T* dy, T* dx, int64_t rows, int64_t cols);

  // y[i] = keep(first + i) ? x[i] / (1 - p) : 0, where keep is a pure function of (seed, stream, index). `first` is a
  // multiple of 4. In place allowed; the backward is the same call on dy.
  void (*dropout)(const T* x, T* y, int64_t n, float p, uint64_t seed, uint64_t stream, uint64_t first);

  // y[r] = w[r] . x, w (rows, cols): decoding's matrix x vector, bound by reading w once.
  void (*matvec)(const T* w, const float* x, float* y, int64_t rows, int64_t cols);

  // Attention (FlashAttention-2 tiling, Dao, arXiv 2307.08691). Both calls handle queries [q_begin, q_end) of query heads
  // [head_begin, head_end), which share one kv head; keys and values are then read once for all of them. The smaller the
  // (queries x heads) of a call, the more of its time goes into packing keys; from 500 up it is lost in the noise.
  // `scratch` is 64-byte aligned, one per thread. A row that sees no key gives out = 0 and lse = -inf.
  //
  // Writes out and lse of its rows.
  void (*attention_forward)(const AttentionSpec& spec, const AttentionSequence<T>& sequence, int head_begin, int head_end,
                            int64_t q_begin, int64_t q_end, void* scratch);
  // From out and lse: writes dq of its rows and adds the rows' share to dk and dv, each score tile computed once. Work is
  // split over threads by kv head, with dk and dv zeroed and then shared by the calls of one kv head in a fixed order;
  // where kv heads are too few, by heads or query ranges, each part with a dk and dv of its own, added up in a fixed order.
  void (*attention_backward)(const AttentionSpec& spec, const AttentionSequence<T>& sequence,
                             const AttentionGradients<T>& gradients, int head_begin, int head_end, int64_t q_begin,
                             int64_t q_end, void* scratch);
  // Bytes of scratch for one thread. Forward needs attention_scratch_bytes(spec, 0) for any range, backward
  // attention_scratch_bytes(spec, rows) with rows >= (head_end - head_begin) * (q_end - q_begin).
  size_t (*attention_scratch_bytes)(const AttentionSpec& spec, int64_t rows);

  SsmKernels<T> ssm;
};

struct Kernels {
  TypedKernels<float> f32;
  TypedKernels<bf16> b16;

  void (*f32_to_bf16)(const float* x, bf16* y, int64_t n);
  void (*bf16_to_f32)(const bf16* x, float* y, int64_t n);
  void (*f32_to_f16)(const float* x, f16* y, int64_t n);
  void (*f16_to_f32)(const f16* x, float* y, int64_t n);

  BlockKernels blocks;
  // y[r] = w[r] . x for w (rows, cols) in f16, as the typed matvec.
  void (*matvec_f16)(const f16* w, const float* x, float* y, int64_t rows, int64_t cols);

  // One row of cross-entropy on logits (vocabulary), with label smoothing eps and z-loss (PaLM, arXiv 2204.02311, section
  // 5): loss = (1-eps) * (lse - z[target]) + eps * (lse - mean(z)) + z_loss * lse^2. Returns the loss; writes lse. If
  // `gradient`, logits become grad_scale * d loss / d logits in place.
  float (*cross_entropy)(float* logits, int64_t vocabulary, int64_t target, float label_smoothing, float z_loss,
                         bool gradient, float grad_scale, float* lse);
  // y += s * x.
  void (*axpy)(float s, const float* x, float* y, int64_t n);
  // Sum of squares, accumulated in double.
  double (*sum_of_squares)(const float* x, int64_t n);
  void (*adamw)(const AdamWStep& step, float* parameter, const float* gradient, float* m, float* v, int64_t n);

  // Runs `iterations` of independent fused multiply-adds and returns the floating-point operations done; the result goes
  // to *sink so that nothing is optimized away. For measuring the machine's f32 peak.
  double (*fma_burst)(int64_t iterations, float* sink);
  // int8 dot-product operations, likewise (VNNI where the set has it).
  double (*int8_burst)(int64_t iterations, int32_t* sink);

  template <typename T>
  const TypedKernels<T>& typed() const;
};
template <>
inline const TypedKernels<float>& Kernels::typed<float>() const {
  return f32;
}
template <>
inline const TypedKernels<bf16>& Kernels::typed<bf16>() const {
  return b16;
}

enum class Isa { scalar, neon, avx2, avx512 };

// "scalar", "avx2", ...
const char* isa_name(Isa isa);
// Instruction sets compiled in that this CPU has, worst first.
std::vector<Isa> available_isas();
// The set in use: the best available, or $QKV_ISA. An unknown or unavailable name is an Error listing what there is.
Isa active_isa();
// The active table.
const Kernels& kernels();
// The table of one available set: entries it lacks come from the next lower one. For tests.
const Kernels& kernels_for(Isa isa);

struct CpuFeatures {
  std::string model;
  bool avx2 = false, fma = false, f16c = false, avx512 = false, avx512_vnni = false, avx512_bf16 = false, avx512_fp16 = false,
       avx_vnni = false, amx_tile = false, amx_bf16 = false, amx_int8 = false, neon = false;
  std::vector<std::string> names() const;
};
const CpuFeatures& cpu_features();
// Asks the kernel for the tile registers' state, once per process (arch_prctl ARCH_REQ_XCOMP_PERM). False without AMX or
// when QKV_ISA names a set below it.
bool amx_usable();

}  // namespace qkv
