// Dense matrix products, through oneDNN with a cache of primitives.
#pragma once

#include <cstdint>
#include <string>

#include "qkv/tensor/dtype.h"

namespace qkv {

// A row-major matrix as stored: `transposed` means that the product uses its transpose.
struct MatrixOperand {
  const void* data = nullptr;
  DType type = DType::f32;  // f32 or bf16
  int64_t stride = 0;       // elements between stored rows
  bool transposed = false;
};

// c (m, n; row stride c_stride; f32 or bf16) = a (m, k) x b (k, n), plus c itself if `accumulate`. Both operands have the
// same type. bf16 operands run on the matrix units where the CPU has them; elsewhere they are widened to f32, which is
// faster there. Products are accumulated in float. Same shapes, thread count and machine give the same bits.
void gemm(int64_t m, int64_t n, int64_t k, const MatrixOperand& a, const MatrixOperand& b, void* c, DType c_type,
          int64_t c_stride, bool accumulate);

// Whether bf16 products run natively (AMX) rather than widened to f32.
bool bf16_products_are_native();

// The library and its version, for `qkv info --system`.
std::string gemm_library();

}  // namespace qkv
