// What this machine can do, measured in about a second and a half: what decoding speed (memory) and training
// speed (matrix products) are to be compared with.
#pragma once

#include <cstdint>

namespace qkv {

struct SystemMemory {
  uint64_t total = 0, available = 0;  // bytes; 0 where the system does not say
};
SystemMemory system_memory();

// Bytes read per second by all threads from a buffer too large for the caches, four streams per thread.
double measure_read_bandwidth();
// Floating-point operations per second of fused multiply-adds from registers, all threads.
double measure_f32_peak();
// Operations per second of int8 dot products from registers, all threads.
double measure_int8_peak();
// Floating-point operations per second of a bf16 matrix product through gemm().
double measure_bf16_product();

}  // namespace qkv
