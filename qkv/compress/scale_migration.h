// Moving factors of a linear layer's input columns into what makes that input: a norm's gains, the values'
// rows before the attention's output, or the ungated half of a gated network. The model computes the same
// before and after.
#pragma once

#include <vector>

#include "qkv/compress/layer_walk.h"

namespace qkv {

// Where factors of an input could go.
enum class InputMaker : uint8_t {
  none,    // something nonlinear, or shared with what is not seen here
  norm,    // attn_norm, mlp_norm, ssm_norm
  values,  // attn.v, where every head has its own
  up,      // mlp.up of a gated network
};
InputMaker maker_of(const Decoder& model, const SharedInput& input);

// Divides the maker's outputs by the factors and multiplies the columns of every matrix that reads them;
// statistics follow. False, with nothing changed, if the maker is `none` or has no gains.
bool migrate(Decoder& model, SharedInput& input, const std::vector<float>& factors);

}  // namespace qkv
