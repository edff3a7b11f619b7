// Moving values between stored tensors and parameters, as a Placement says: rows taken out of fused, stacked
// and permuted tensors and put back, transposed, shifted by one or as -exp(w). Every function is the exact
// inverse of its neighbour but for the rounding of transformed values.
#pragma once

#include "qkv/models/weight_map.h"
#include "qkv/tensor/tensor.h"

namespace qkv {

// Whether a stored tensor that holds one parameter and nothing else has its values in the parameter's order.
bool lies_as_it_is(const StoredTensor& place);

// The parameter's values out of the whole stored tensor (of place.shape), in the stored type, or f32 where
// the stored values are transformed. Borrowed from it where they are one run of rows. Error if a block type
// cannot be cut that way.
Tensor take_parameter(const Tensor& stored, const StoredTensor& place, const Shape& parameter);

// Puts a parameter into its place in the stored tensor; both are of one type, and the values of a transformed
// place are f32 in both.
void put_parameter(Tensor& stored, const StoredTensor& place, const Tensor& parameter);

}  // namespace qkv
