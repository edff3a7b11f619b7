// A minimal reader of safetensors files for tests: independent of the formats layer, whole file in memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace qkv::test {

class GoldenSafetensors {
 public:
  explicit GoldenSafetensors(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    if (bytes_.size() < 8) throw std::runtime_error(path + ": cannot be read");
    uint64_t header = 0;
    std::memcpy(&header, bytes_.data(), 8);
    if (header > bytes_.size() - 8) throw std::runtime_error(path + ": header runs past the end of the file");
    data_ = 8 + static_cast<size_t>(header);
    header_ = nlohmann::json::parse(bytes_.begin() + 8, bytes_.begin() + static_cast<std::ptrdiff_t>(data_));
  }

  std::vector<int64_t> shape(const std::string& name) const {
    return header_.at(name).at("shape").get<std::vector<int64_t>>();
  }

  // The elements of a float64, float32, int64, int32, byte or boolean tensor, row-major.
  std::vector<double> values(const std::string& name) const {
    const auto& entry = header_.at(name);
    const std::string dtype = entry.at("dtype");
    if (dtype == "F64") return read<double>(entry);
    if (dtype == "F32") return read<float>(entry);
    if (dtype == "I64") return read<int64_t>(entry);
    if (dtype == "I32") return read<int32_t>(entry);
    if (dtype == "BOOL" || dtype == "U8") return read<uint8_t>(entry);
    throw std::runtime_error(name + ": dtype " + dtype + " is not read here");
  }

 private:
  template <typename T>
  std::vector<double> read(const nlohmann::json& entry) const {
    const size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
    if (end < begin || end > bytes_.size() - data_)
      throw std::runtime_error("data runs past the end of the file");
    std::vector<double> result((end - begin) / sizeof(T));
    for (size_t i = 0; i < result.size(); ++i) {
      T value;
      std::memcpy(&value, bytes_.data() + data_ + begin + i * sizeof(T), sizeof(T));
      result[i] = static_cast<double>(value);
    }
    return result;
  }

  std::vector<char> bytes_;
  size_t data_ = 0;
  nlohmann::json header_;
};

}  // namespace qkv::test
