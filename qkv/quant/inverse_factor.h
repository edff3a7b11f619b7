// The factor of an inverse that error-compensated rounding walks along: U, upper triangular, with H^-1 = U^T
// U. Row i of U, divided by U[i][i], says by how much the columns after i make up for an error in column i
// (GPTQ: Frantar et al., arXiv 2210.17323, section 3.3).
#pragma once

#include <optional>

#include "qkv/tensor/tensor.h"

namespace qkv {

// H (n, n) f32, symmetric. Factorized from its last column to its first, H = R R^T with R upper triangular,
// so that U = R^-1 and the inverse itself is never made. Nothing if H is not positive definite.
std::optional<Tensor> inverse_factor(const Tensor& h);

// H ready to be factorized: columns without any input get the mean of the others on their diagonal, then
// `damping` times the mean of the diagonal is added to it. The identity if no column has any.
Tensor damped(const Tensor& h, double damping);

// inverse_factor(damped(h, damping)), with ten times the damping where that is not positive definite, and so
// on. Error `<where>: ...` if nothing helps.
Tensor damped_inverse_factor(const Tensor& h, double damping, std::string_view where);

}  // namespace qkv
