// Everything an instruction-set translation unit compiles: the vector primitives, the algorithms, and make_table().
// Included once per translation unit; needs the set's compiler flags (and HWY_COMPILE_ONLY_SCALAR for scalar).
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "qkv/core/rng.h"
#include "qkv/kernels/kernels.h"

namespace qkv {
namespace {

#include "qkv/kernels/bodies/vector.inl"
//
#include "qkv/kernels/bodies/activation.inl"
#include "qkv/kernels/bodies/attention_tiles.inl"
#include "qkv/kernels/bodies/attention_scores.inl"
//
#include "qkv/kernels/bodies/attention_few.inl"
#include "qkv/kernels/bodies/attention_forward.inl"
#include "qkv/kernels/bodies/attention_backward.inl"
#include "qkv/kernels/bodies/causal_conv.inl"
#include "qkv/kernels/bodies/convert.inl"
#include "qkv/kernels/bodies/elementwise.inl"
#include "qkv/kernels/bodies/loss.inl"
#include "qkv/kernels/bodies/norm.inl"
#include "qkv/kernels/bodies/optimizer.inl"
#include "qkv/kernels/bodies/rope.inl"
#include "qkv/kernels/bodies/scan.inl"
#include "qkv/kernels/bodies/softmax.inl"
#include "qkv/kernels/bodies/ssd.inl"

template <typename T>
TypedKernels<T> make_typed() {
  TypedKernels<T> table{};
  table.add = add<T>;
  table.multiply = multiply<T>;
  table.scale = scale<T>;
  table.sum_rows = sum_rows<T>;
  table.add_bias = add_bias<T>;
  table.activation = activation<T>;
  table.activation_backward = activation_backward<T>;
  table.gated = gated<T>;
  table.gated_backward = gated_backward<T>;
  table.rms_norm = rms_norm<T>;
  table.rms_norm_backward = rms_norm_backward<T>;
  table.layer_norm = layer_norm<T>;
  table.layer_norm_backward = layer_norm_backward<T>;
  table.rope = rope<T>;
  table.softmax = softmax<T>;
  table.softmax_backward = softmax_backward<T>;
  table.log_softmax = log_softmax<T>;
  table.log_softmax_backward = log_softmax_backward<T>;
  table.dropout = dropout<T>;
  table.matvec = matvec<T>;
  table.attention_forward = attention_forward<T>;
  table.attention_backward = attention_backward<T>;
  table.attention_scratch_bytes = attention_scratch_bytes;
  table.ssm.causal_conv = causal_conv<T>;
  table.ssm.causal_conv_backward = causal_conv_backward<T>;
  table.ssm.scan_forward = scan_forward<T>;
  table.ssm.scan_backward = scan_backward<T>;
  table.ssm.scan_scratch_bytes = scan_scratch_bytes;
  table.ssm.ssd_steps = ssd_steps<T>;
  table.ssm.ssd_steps_backward = ssd_steps_backward<T>;
  table.ssm.ssd_recurrent = ssd_recurrent<T>;
  table.ssm.ssd_state = ssd_state<T>;
  table.ssm.ssd_output = ssd_output<T>;
  table.ssm.ssd_state_backward = ssd_state_backward<T>;
  table.ssm.ssd_backward = ssd_backward<T>;
  table.ssm.ssd_scratch_bytes = ssd_scratch_bytes;
  return table;
}

Kernels make_table() {
  Kernels table{};
  table.f32 = make_typed<float>();
  table.b16 = make_typed<bf16>();
  table.f32_to_bf16 = convert<float, bf16>;
  table.bf16_to_f32 = convert<bf16, float>;
  table.f32_to_f16 = convert<float, f16>;
  table.f16_to_f32 = convert<f16, float>;
  table.matvec_f16 = matvec<f16>;
  table.cross_entropy = cross_entropy;
  table.axpy = axpy;
  table.sum_of_squares = sum_of_squares;
  table.adamw = adamw;
  table.fma_burst = fma_burst;
  table.int8_burst = int8_burst;
  return table;
}

}  // namespace
}  // namespace qkv
