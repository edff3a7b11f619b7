// Kernels of the searches that quantize to block types: fitting scales to small groups of values.
//
// A group is what shares one scale: 16, 32 or 256 values. Every step of its search depends on the group
// alone, so groups lie side by side, one per vector lane, and nothing is ever summed across lanes:
// kGroupLanes groups of n values are x[i * kGroupLanes + g]. Multiplications and additions are never fused,
// so that all instruction sets give the same bits and a file does not depend on the machine that made it.
//
// `w` has the values' weights in the same layout, or is null where all are 1. Errors are sums of w (x -
// value)^2.
#pragma once

#include <cstdint>

#include "qkv/kernels/kernels.h"

namespace qkv {

constexpr int kGroupLanes = 32;

// The values that a group's scale multiplies.
struct Levels {
  enum class Kind : uint8_t {
    linear,  // the integers least ... most
    iq4,     // kIq4Values
    mxfp4,   // kMxfp4Values
  };
  Kind kind = Kind::linear;
  int least = 0, most = 0;
};

// Candidates of a search: the extreme value of a group is mapped to least - (first + k * step), k = 0 ...
// count - 1; with `both_ends` also to most + (first + k * step). (For codes from 0 on: the spread to most +
// first + k * step.)
struct SearchSteps {
  float first = 0, step = 0;
  int count = 0;
  bool both_ends = false;
};

// Sums of a group with its codes: what a better common scale of several groups is solved from.
struct GroupSums {
  float xl[kGroupLanes];   // w x code
  float ll[kGroupLanes];   // w code^2
  float l[kGroupLanes];    // w code
  float x[kGroupLanes];    // w x
  float xx[kGroupLanes];   // w x^2
  float one[kGroupLanes];  // w
};

struct QuantizeKernels {
  // value = scale * code + offset with codes 0 ... most: for each candidate step width the codes, for those
  // codes the best scale and offset (weighted least squares), of all the pair with the least error.
  // `negative`: offsets are <= 0.
  void (*fit_affine)(const float* x, const float* w, int n, int most, bool negative, SearchSteps steps,
                     float* scale, float* offset);
  // value = scale * level. The extreme value (by magnitude) goes to levels.least and beyond, so scales have
  // either sign.
  void (*fit_scale)(const float* x, const float* w, int n, Levels levels, SearchSteps steps, float* scale);
  // Which of `count` given pairs has the least error, the first of equals; pairs lie [count][kGroupLanes].
  void (*pick_affine)(const float* x, const float* w, int n, int most, int count, const float* scales,
                      const float* offsets, int32_t* best, float* error);
  void (*pick_scale)(const float* x, const float* w, int n, Levels levels, int count, const float* scales,
                     int32_t* best, float* error);
  // The nearest codes, codes[i * kGroupLanes + g], and their sums unless `sums` is null; a scale of 0 gives
  // code 0 (of iq4: the level nearest to 0). For levels the code is the level itself.
  void (*encode_affine)(const float* x, const float* w, int n, int most, const float* scale,
                        const float* offset, int8_t* codes, GroupSums* sums);
  void (*encode_scale)(const float* x, const float* w, int n, Levels levels, const float* scale,
                       int8_t* codes, GroupSums* sums);
  // The f16 values nearest to `wanted` and next to it: nearest[0 ... 31] the nearest itself, then the one
  // beyond it (farther from zero), then the one before it. Cut to what f16 holds; 0 has no neighbour before.
  void (*nearest_f16)(const float* wanted, float* nearest);

  // ---- codebooks ----
  // A vector's values are weighed against every entry of a codebook at once. `grid` and `squares` hold the
  // entries, a multiple of kGroupLanes, in tiles: value i of entry e is at [(e / kGroupLanes * dims + i) *
  // kGroupLanes + e % kGroupLanes], so that they are read in order. products[e] = sum over i of wx[i] grid(e,
  // i), norms[e] = sum of w[i] squares(e, i).
  void (*grid_products)(const float* wx, const float* w, const float* grid, const float* squares, int dims,
                        int entries, float* products, float* norms);
  // The first of the entries that lower the error most at a scale: by scale (2 products[e] - scale norms[e]).
  int (*grid_best)(const float* products, const float* norms, int entries, float scale);
};

// Of the active instruction set, and of one that the CPU has.
const QuantizeKernels& quantize_kernels();
const QuantizeKernels& quantize_kernels_for(Isa isa);

// The tables that the instruction-set translation units make.
QuantizeKernels kernels_scalar_quantize();
QuantizeKernels kernels_avx2_quantize();
QuantizeKernels kernels_avx512_quantize();
QuantizeKernels kernels_neon_quantize();

}  // namespace qkv
