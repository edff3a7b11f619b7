// What this machine can do, measured in about a second and a half: what decoding speed (memory) and training
// speed (matrix products) are to be compared with.
#pragma once

#include <cstdint>
#include <string>

namespace qkv {

struct SystemMemory {
  uint64_t total = 0, available = 0;  // bytes; 0 where the system does not say
};
// Available: what the system says, or what the limit of this process's control group leaves, if that is less.
SystemMemory system_memory();
// Memory of this process that is resident now, without pages of files whose path begins with `model`: what of
// them is in memory depends on how they have been read.
uint64_t resident_bytes_beside(const std::string& model);

// Bytes read per second by all threads from a buffer too large for the caches, four streams per thread.
double measure_read_bandwidth();
// Floating-point operations per second of fused multiply-adds from registers, all threads.
double measure_f32_peak();
// Operations per second of int8 dot products from registers, all threads.
double measure_int8_peak();
// Floating-point operations per second of a bf16 matrix product through gemm().
double measure_bf16_product();

}  // namespace qkv
