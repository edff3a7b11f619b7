// State-space kernels: the causal convolution and the selective scan of Mamba (Gu & Dao, arXiv 2312.00752),
// and the chunks of Mamba-2 (Dao & Gu, arXiv 2405.21060). They are TypedKernels<T>::ssm; the conventions are
// those of kernels.h.
//
// What belongs to a channel lies channel by channel in memory (rates (states, D), states (states, D)), so
// that a vector is a group of neighbouring channels and no sum runs across lanes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qkv {

// One sequence of a causal depthwise convolution: y[t, c] = f(bias[c] + sum over k of w[k, c] x[t - taps + 1
// + k, c]), with f the identity or SiLU.
template <typename T>
struct CausalConvSequence {
  const T* x = nullptr;  // (tokens, channels)
  const float* past =
      nullptr;  // (taps - 1, channels): what came before the first token, oldest first; null: zeros
  const float* w = nullptr;     // (taps, channels)
  const float* bias = nullptr;  // (channels) or null
  int64_t tokens = 0, channels = 0, taps = 0;
  bool silu = true;
};

// Tokens between two saved states of a selective scan.
constexpr int64_t kScanChunk = 64;

// Channels of one sequence of a selective scan, all of one group (they share b and c). With d =
// softplus(delta + delta_bias) or d = delta + delta_bias:
//   h[t] = exp(d[t] a) h[t - 1] + d[t] u[t] b[t],   y[t] = sum over states of c[t] h[t] + skip u[t],   out =
//   y silu(z).
// Pointers are to the first channel. Rows of u, delta, z, out, a, state and of each boundary are `stride`
// apart, those of b and c `bc_stride`.
template <typename T>
struct ScanSequence {
  const T *u = nullptr, *delta = nullptr;
  const T* z = nullptr;                // null: no gate
  const T *b = nullptr, *c = nullptr;  // (tokens, states)
  T* out = nullptr;
  const float* a = nullptr;           // (states, channels)
  const float* skip = nullptr;        // (channels) or null
  const float* delta_bias = nullptr;  // (channels) or null
  float* state =
      nullptr;  // (states, channels): h before the first token; the forward leaves h after the last
  float* boundaries = nullptr;  // h before every kScanChunk-th token; written by the forward unless null
  int64_t tokens = 0, channels = 0, states = 0;
  int64_t stride = 0, bc_stride = 0;
  bool softplus = true;
};

template <typename T>
struct ScanGradients {
  const T* dout = nullptr;
  T *du = nullptr, *ddelta = nullptr;              // rows as those of u
  T* dz = nullptr;                                 // null without gate
  float *db = nullptr, *dc = nullptr;              // rows as those of b; these channels' share, overwritten
  float* da = nullptr;                             // rows as those of a; accumulated
  float *dskip = nullptr, *ddelta_bias = nullptr;  // (channels), accumulated; null where there is none
};

// Tokens of one chunk of Mamba-2 at most.
constexpr int64_t kSsdChunk = 96;

// Neighbouring tokens of one sequence and neighbouring heads of one group (they share b and c) of Mamba-2:
//   h[t] = exp(dt[t] a) h[t - 1] + dt[t] b[t] x[t]^T  (states, head_dim),   y[t] = c[t] h[t] + skip x[t].
// Pointers are to the first token and head. A head's state is (states, head_dim), heads one after the other.
template <typename T>
struct SsdChunk {
  const T *x = nullptr, *b = nullptr, *c = nullptr;  // rows of (heads, head_dim) and of (states)
  T* y = nullptr;                                    // rows as x
  const float* dt = nullptr;                         // rows of (heads)
  const float* a = nullptr;                          // (heads), negative
  const float* skip = nullptr;                       // (heads) or null
  int64_t tokens = 0, heads = 0, head_dim = 0, states = 0;
  int64_t x_stride = 0, bc_stride = 0, dt_stride = 0;  // from token to token
};

template <typename T>
struct SsdGradients {
  const T* dy = nullptr;                  // rows as x
  T* dx = nullptr;                        // rows as x
  float *db = nullptr, *dc = nullptr;     // rows as b; these heads' share, overwritten
  float* ddt = nullptr;                   // rows as dt
  float *da = nullptr, *dskip = nullptr;  // (heads), overwritten; dskip null where there is none
};

template <typename T>
struct SsmKernels {
  // y of tokens [begin, end).
  void (*causal_conv)(const CausalConvSequence<T>& sequence, T* y, int64_t begin, int64_t end);
  // dx of tokens [begin, end); the share of those tokens' outputs is added to dw (taps, channels) and, unless
  // null, dbias (channels). `ring` is taps x channels floats.
  void (*causal_conv_backward)(const CausalConvSequence<T>& sequence, const T* dy, T* dx, float* dw,
                               float* dbias, int64_t begin, int64_t end, float* ring);

  void (*scan_forward)(const ScanSequence<T>& sequence, void* scratch);
  // From the forward's boundaries, whose inner states are made again.
  void (*scan_backward)(const ScanSequence<T>& sequence, const ScanGradients<T>& gradients, void* scratch);
  // Bytes of 64-byte aligned scratch for either.
  size_t (*scan_scratch_bytes)(int64_t channels, int64_t states);

  // dt = min(max(f(x + bias), least), most) for each of n rows of `heads`, f softplus or the identity; bias
  // may be null.
  void (*ssd_steps)(const T* x, const float* bias, bool softplus, float least, float most, float* dt,
                    int64_t rows, int64_t heads);
  // dx = ddt times the slope, zero where dt was limited; added to dbias (heads) unless null.
  void (*ssd_steps_backward)(const T* x, const float* bias, bool softplus, float least, float most,
                             const float* ddt, T* dx, float* dbias, int64_t rows, int64_t heads);
  // Any number of tokens one after the other: y, and the heads' states go on.
  void (*ssd_recurrent)(const SsdChunk<T>& chunk, float* state);
  // What the chunk (at most kSsdChunk tokens) adds to the heads' states, and by what it multiplies those
  // before it: state after = decay (heads) * state before + added.
  void (*ssd_state)(const SsdChunk<T>& chunk, float* added, float* decay, void* scratch);
  // y, from the heads' states before the chunk (null: zeros).
  void (*ssd_output)(const SsdChunk<T>& chunk, const float* before, void* scratch);
  // What the chunk's y adds to the gradient of the states before it, which beside that is decay * gradient of
  // those after.
  void (*ssd_state_backward)(const SsdChunk<T>& chunk, const T* dy, float* added, float* decay,
                             void* scratch);
  // All other gradients, from the states before the chunk and the gradient of those after it (null: zeros).
  void (*ssd_backward)(const SsdChunk<T>& chunk, const SsdGradients<T>& gradients, const float* before,
                       const float* dafter, void* scratch);
  // Bytes of 64-byte aligned scratch for any of the last four.
  size_t (*ssd_scratch_bytes)(int64_t head_dim, int64_t states);
};

}  // namespace qkv
