#include "qkv/models/weight_map.h"

#include <algorithm>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/models/model.h"

namespace qkv {
namespace {

struct ParsedName {
  std::string pattern;           // every all-digit segment replaced by "{}"
  std::string suffix;            // ".weight", ".bias" or ""
  std::vector<int64_t> numbers;  // layer, expert
};

// "blocks.3.moe.experts.7.gate.weight" -> {"blocks.{}.moe.experts.{}.gate", ".weight", {3, 7}}.
ParsedName parse_name(const std::string& name) {
  ParsedName parsed;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string segment = name.substr(begin, end - begin);
    const bool number = !segment.empty() && std::all_of(segment.begin(), segment.end(),
                                                        [](char c) { return '0' <= c && c <= '9'; });
    const bool last = end == name.size();
    if (last && (segment == "weight" || segment == "bias")) {
      parsed.suffix = "." + segment;
    } else {
      if (!parsed.pattern.empty()) parsed.pattern += '.';
      parsed.pattern += number ? "{}" : segment;
      if (number) parsed.numbers.push_back(std::stoll(segment));
    }
    begin = end + 1;
  }
  return parsed;
}

// The stored name of a pattern; '!' at the end refuses the suffix.
std::string stored_name(const std::string& pattern, const ParsedName& parameter) {
  if (pattern.empty()) return "";
  std::string name;
  size_t number = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.compare(i, 2, "{}") == 0) {
      require(number < parameter.numbers.size(), "weight table: pattern '{}' has more numbers than '{}'",
              pattern, parameter.pattern);
      name += std::to_string(parameter.numbers[number++]);
      ++i;
    } else {
      name += pattern[i];
    }
  }
  if (name.back() == '!') {
    name.pop_back();
    return name;
  }
  return name + parameter.suffix;
}

int64_t matrix_rows(const Shape& shape) {
  return shape.rank() == 1 ? shape[0] : shape.rows();
}
int64_t matrix_cols(const Shape& shape) {
  return shape.rank() == 1 ? 1 : shape.cols();
}

// What all parameters that share a stored tensor say about it together.
struct Shared {
  int64_t rows = 0;     // of all of them
  int64_t experts = 1;  // one more than the largest
};

Shape stored_shape(const Placement& at, const Shape& parameter, const Shared& shared) {
  if (!at.shape.empty()) return Shape(at.shape);
  const int64_t cols = matrix_cols(parameter);
  if (at.stacked) {
    const int64_t rows = shared.rows / shared.experts;
    return parameter.rank() == 1 ? Shape{shared.experts, rows} : Shape{shared.experts, rows, cols};
  }
  if (parameter.rank() == 1) return {shared.rows};
  return at.transposed ? Shape{cols, shared.rows} : Shape{shared.rows, cols};
}

}  // namespace

std::vector<WeightMapping> expand(Model& model) {
  const std::vector<WeightRow> table = model.weight_table();
  std::unordered_map<std::string, const WeightRow*> rows;
  for (const auto& row : table) rows.emplace(row.name, &row);

  std::vector<WeightMapping> mappings;
  std::vector<int64_t> experts;
  std::unordered_map<std::string, Shared> hf_shared, gguf_shared;
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    const ParsedName parsed = parse_name(name);
    auto it =
        rows.find(parsed.pattern + parsed.suffix);  // a row for just this one of weight and bias goes first
    if (it == rows.end()) it = rows.find(parsed.pattern);
    require(it != rows.end(), "{}: parameter '{}' is not in the weight table", model.info().model_type, name);
    const WeightRow& row = *it->second;
    const int64_t expert = parsed.numbers.size() > 1 ? parsed.numbers[1] : 0;
    WeightMapping mapping{name,
                          parameter.shape(),
                          {stored_name(row.hf, parsed), {}, row.hf_at},
                          {stored_name(row.gguf, parsed), {}, row.gguf_at},
                          row.f32 || parameter.shape().rank() < 2};
    for (auto [stored, shared_by_name] :
         {std::pair{&mapping.hf, &hf_shared}, std::pair{&mapping.gguf, &gguf_shared}}) {
      if (stored->name.empty()) continue;
      Shared& shared = (*shared_by_name)[stored->name];
      shared.rows += matrix_rows(mapping.shape);
      if (stored->at.stacked) shared.experts = std::max(shared.experts, expert + 1);
    }
    mappings.push_back(std::move(mapping));
    experts.push_back(expert);
  });
  for (size_t i = 0; i < mappings.size(); ++i) {
    WeightMapping& mapping = mappings[i];
    for (auto [stored, shared_by_name] :
         {std::pair{&mapping.hf, &hf_shared}, std::pair{&mapping.gguf, &gguf_shared}}) {
      if (stored->name.empty()) continue;
      const Shared& shared = shared_by_name->at(stored->name);
      stored->shape = stored_shape(stored->at, mapping.shape, shared);
      if (stored->at.stacked) stored->at.offset += experts[i] * (shared.rows / shared.experts);
    }
  }
  return mappings;
}

int64_t stored_row(const Placement& at, int64_t row, int64_t rows) {
  if (at.rope_head > 0) {
    const int64_t head = row / at.rope_head, i = row % at.rope_head, half = at.rope_head / 2;
    row = head * at.rope_head + (i < half ? 2 * i : 2 * (i - half) + 1);
  }
  const int64_t run = at.run > 0 ? at.run : rows;
  return at.offset + row / run * at.stride + row % run;
}

}  // namespace qkv
