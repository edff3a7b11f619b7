// What imatrix and quantize --calibrate share: importances of a model on the command line.
#pragma once

#include <string>

#include "qkv/compress/calibrate.h"

namespace qkv {

// Loads the model and runs the text through it, with a line of progress. Error if it has no tokenizer.
Importance calibrated_importance(const std::string& model, const std::string& text,
                                 ImatrixOptions options);

}  // namespace qkv
