// qkv info MODEL: what a checkpoint holds, of any format and architecture.
#pragma once

#include <string>

#include "tensor_info.h"

namespace qkv {

struct ModelInfoRequest {
  std::string path;
  bool tensors = false;  // list them with statistics
  TensorInfoRequest analysis;
  std::string report;     // an HTML file to write; "" for none
  std::string histogram;  // of this tensor; "" for none
  bool json = false;
};

void print_model_info(const ModelInfoRequest& request);

}  // namespace qkv
