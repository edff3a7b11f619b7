// How the pieces of a decoded text are joined where their concatenation is not all.
#pragma once

namespace qkv {

struct JoinRules {
  bool strips_leading_space = false;  // the space that an encoder put in front (SentencePiece's dummy prefix)
  bool strips_trailing_space = false;  // the space that ends the last word
  bool collapses_repeats = false;      // neighbouring equal tokens count once (CTC)
};

}  // namespace qkv
