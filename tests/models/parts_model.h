// A model that only has parameters and a weight table.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "qkv/models/model.h"

namespace qkv::test {

class Parts : public Model {
 public:
  explicit Parts(std::vector<std::pair<std::string, Shape>> parts, std::vector<WeightRow> table)
      : table_(std::move(table)) {
    for (auto& [name, shape] : parts) parameters_.emplace_back(name, Tensor::placeholder(shape));
    info_.model_type = info_.architecture = "parts";
  }
  const ModelInfo& info() const override { return info_; }
  ModelInfo& info() { return info_; }
  Tensor forward(const std::vector<int32_t>&, const Pass&) const override { return {}; }
  const Tensor& head() const override { return parameters_[0].second; }
  SequenceState make_state(const CacheOptions&) const override { return {}; }
  uint64_t state_bytes(const CacheOptions&, int64_t, int64_t) const override { return 0; }
  using Model::make_state;
  std::vector<WeightRow> weight_table() const override { return table_; }
  Json hf_config() const override { return Json::object(); }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    for (auto& [name, tensor] : parameters_) visitor(prefix + name, tensor);
  }
  Tensor& parameter(const std::string& name) {
    for (auto& [own, tensor] : parameters_) {
      if (own == name) return tensor;
    }
    throw std::out_of_range(name);
  }

 private:
  ModelInfo info_;
  std::vector<WeightRow> table_;
  std::vector<std::pair<std::string, Tensor>> parameters_;
};

}  // namespace qkv::test
