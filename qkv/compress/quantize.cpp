#include "qkv/compress/quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <unordered_map>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/qkv_file.h"
#include "qkv/models/convert.h"
#include "qkv/models/hf_metadata.h"
#include "qkv/quant/quantize.h"
#include "qkv/tensor/convert.h"
#include "qkv/text/regex.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// ggml's GGML_QNT_VERSION.
constexpr uint32_t kQuantizationVersion = 2;
// Values that a thread takes at a time.
constexpr int64_t kPiece = int64_t{1} << 15;

// The index of the first value that is NaN, infinite or larger than can be quantized; n if there is none.
int64_t first_unfit(const float* x, int64_t n) {
  uint32_t most = 0;
  std::memcpy(&most, &kMostQuantizable, sizeof most);
  uint32_t largest = 0;  // magnitudes compare like their bits, and NaN lies above infinity
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, x + i, sizeof bits);
    largest = std::max(largest, bits & 0x7FFFFFFFu);
  }
  if (largest <= most) return n;
  return std::find_if(x, x + n, [](float v) { return !(std::abs(v) <= kMostQuantizable); }) - x;
}

bool is_quantizable(const Tensor& values) {
  std::atomic<bool> fits = true;
  parallel_for(values.rows(), std::max<int64_t>(1, kPiece / std::max<int64_t>(1, values.cols())),
               [&](int64_t begin, int64_t end) {
                 std::vector<float> row(static_cast<size_t>(values.cols()));
                 for (int64_t r = begin; r < end && fits; ++r) {
                   widen(values.raw(), values.dtype(), r * values.cols(), values.cols(), row.data());
                   if (first_unfit(row.data(), values.cols()) < values.cols()) fits = false;
                 }
               });
  return fits;
}

// Of one source tensor after the other.
class TypeChooser {
 public:
  TypeChooser(const QuantizeOptions& options, const Checkpoint& source) : options_(options), source_(source) {
    for (const auto& [pattern, type] : options.tensor_types)
      patterns_.emplace_back(Regex(pattern, "--tensor-type"), type);
  }

  // The type to write; notes in `tensor` who wanted it and, where it is not the wanted one, why.
  DType choose(const PlannedTensor& planned, std::optional<DType> mixed, QuantizedTensor& tensor) {
    const TensorEntry& entry = planned.entry;
    tensor.is_matrix = mixed.has_value();
    if (!mixed) return entry.type;
    const std::optional<DType> asked = asked_for(entry);
    tensor.is_fixed = asked.has_value();
    std::string& note = tensor.note;
    DType type = asked ? *asked : options_.pure ? traits(options_.type).base : *mixed;
    const DType fitting = fitting_type(type, entry.shape.cols());
    if (fitting != type) {
      note = fmt::format("rows of {} are not whole blocks of {}: {} instead", entry.shape.cols(), name(type),
                         name(fitting));
      type = fitting;
    }
    if (const auto block = block_type(type);
        block && needs_importance(*block) && !has_importance(entry.name)) {
      fail(
          "{}: tensor '{}': {} needs importances and there are none for it; --imatrix FILE or --calibrate "
          "TEXT gives them",
          source_.path(), entry.name, name(type));
    }
    if (options_.keep_nonfinite && type != entry.type && !is_quantizable(make_tensor(source_, planned))) {
      note = fmt::format("with values that are NaN, infinite or beyond {}: kept as {}", kMostQuantizable,
                         name(entry.type));
      tensor.is_fixed = true;
      return entry.type;
    }
    return type;
  }

 private:
  std::optional<DType> asked_for(const TensorEntry& entry) {
    if (options_.embedding_type && entry.name == "token_embd.weight") return *options_.embedding_type;
    if (options_.output_type && entry.name == "output.weight") return *options_.output_type;
    for (const auto& [pattern, type] : patterns_) {
      if (pattern.find(entry.name, 0, scratch_)) return type;
    }
    return std::nullopt;
  }
  bool has_importance(const std::string& tensor) const {
    return options_.importance != nullptr && options_.importance->matrices.count(tensor) > 0;
  }

  const QuantizeOptions& options_;
  const Checkpoint& source_;
  std::vector<std::pair<Regex, DType>> patterns_;
  Regex::Scratch scratch_;
};

void set_type(QuantizedTensor& tensor, DType type, const QuantizeOptions& options) {
  tensor.to = type;
  tensor.bytes_to = tensor_bytes(type, tensor.shape);
  tensor.weighted = is_block(type) && type != tensor.from && options.importance != nullptr &&
                    options.importance->matrices.count(tensor.name) > 0;
}

void set_metadata(Metadata& metadata, const QuantizeOptions& options) {
  metadata.set("general.file_type", traits(options.type).number);
  metadata.set("general.quantization_version", kQuantizationVersion);
  // What they say of exact types is not true of the values any more.
  metadata.erase(kHfDtypes);
  if (options.importance == nullptr) return;
  metadata.set("quantize.imatrix.file", options.importance_name);
  if (!options.importance->datasets.empty())
    metadata.set("quantize.imatrix.dataset", options.importance->datasets.front());
  metadata.set("quantize.imatrix.entries_count", static_cast<uint32_t>(options.importance->matrices.size()));
  metadata.set("quantize.imatrix.chunks_count", static_cast<uint32_t>(options.importance->chunks));
}

void require_place(const Checkpoint& source, const std::string& output, uint64_t bytes) {
  const Container container = container_of(output);
  require(container == Container::gguf || container == Container::qkv,
          "{}: expected a name that ends with .gguf or .qkv, which hold quantized tensors", output);
  std::error_code ignored;
  require(!fs::equivalent(source.path(), output, ignored), "{}: expected another place than the source's",
          output);
  require(!fs::is_directory(output, ignored), "{}: expected a file, found a directory", output);
  const fs::path parent = fs::absolute(output).parent_path();
  require(fs::is_directory(parent, ignored),
          "{}: expected an existing directory {} to write into, found none", output, parent.string());
  std::error_code code;
  const fs::space_info space = fs::space(parent, code);
  require(code || space.available >= bytes, "{}: expected {} of free disk space, found {}", output,
          format_bytes(bytes), format_bytes(space.available));
}

}  // namespace

double QuantizePlan::bits_per_weight() const {
  return elements > 0 ? 8.0 * static_cast<double>(bytes_to) / static_cast<double>(elements) : 0.0;
}

Tensor quantize_tensor(const Tensor& values, DType type, const std::vector<float>* importance,
                       const std::string& where) {
  const auto block = block_type(type);
  require(block.has_value(), "{}: expected a block type, found {}", where, name(type));
  const Shape& shape = values.shape();
  Tensor result = Tensor::empty(shape, type);
  const int64_t cols = shape.cols(), rows = shape.rows();
  if (rows == 0 || cols == 0) return result;
  // Pieces do not reach from one expert into the next, which has importances of its own.
  const bool stacked = importance != nullptr && static_cast<int64_t>(importance->size()) > cols;
  const int64_t rows_of_one = stacked ? rows * cols / static_cast<int64_t>(importance->size()) : rows;
  const int64_t step = std::clamp<int64_t>(kPiece / cols, 1, rows_of_one);
  const int64_t pieces_of_one = (rows_of_one + step - 1) / step;
  const int64_t row_bytes = cols / block_length(*block) * block_bytes(*block);
  std::vector<std::vector<float>> scratch(static_cast<size_t>(num_threads()));
  parallel_items(rows / rows_of_one * pieces_of_one, [&](int64_t piece, int thread) {
    const int64_t expert = piece / pieces_of_one, first = piece % pieces_of_one * step;
    const int64_t count = std::min(step, rows_of_one - first), begin = expert * rows_of_one + first;
    auto& floats = scratch[static_cast<size_t>(thread)];
    floats.resize(static_cast<size_t>(step * cols));
    widen(values.raw(), values.dtype(), begin * cols, count * cols, floats.data());
    const int64_t bad = first_unfit(floats.data(), count * cols);
    require(
        bad == count * cols,
        "{}: expected finite values up to {}, found {} at row {}, column {}; --keep-nonfinite leaves such "
        "tensors as they are",
        where, kMostQuantizable, bad < count * cols ? floats[static_cast<size_t>(bad)] : 0.0f,
        begin + bad / cols, bad % cols);
    const float* weights =
        importance == nullptr ? nullptr : importance->data() + (stacked ? expert * cols : 0);
    quantize_rows(*block, floats.data(), count, cols, weights, result.raw() + begin * row_bytes);
  });
  return result;
}

QuantizePlan plan_quantization(const Checkpoint& source, const QuantizeOptions& options) {
  QuantizePlan plan;
  plan.type = options.type;
  plan.conversion = plan_conversion(source, Container::gguf, std::nullopt);
  require(plan.conversion.metadata.has("general.architecture"),
          "{}: expected a model that GGUF has an architecture for", source.path());
  std::vector<TensorEntry> entries;
  for (const auto& planned : plan.conversion.tensors) entries.push_back(planned.entry);
  if (options.importance != nullptr) options.importance->require_of(entries, options.importance_name);
  ModelShape model = ModelShape::of(plan.conversion.metadata, entries);
  model.has_importance = options.importance != nullptr;
  const auto mixed = mixed_types(options.type, model, entries);
  TypeChooser chooser(options, source);
  for (size_t i = 0; i < entries.size(); ++i) {
    PlannedTensor& planned = plan.conversion.tensors[i];
    QuantizedTensor tensor = {.name = entries[i].name, .shape = entries[i].shape, .from = entries[i].type};
    tensor.bytes_from = tensor_bytes(tensor.from, tensor.shape);
    tensor.to = chooser.choose(planned, mixed[i], tensor);
    set_type(tensor, tensor.to, options);
    plan.bytes_from += tensor.bytes_from;
    plan.bytes_to += tensor.bytes_to;
    plan.elements += tensor.shape.elements();
    plan.tensors.push_back(std::move(tensor));
  }
  set_metadata(plan.conversion.metadata, options);
  return plan;
}

void set_types(QuantizePlan& plan, const std::vector<DType>& types, const QuantizeOptions& options) {
  require(types.size() == plan.tensors.size(), "quantize: expected a type for each of {} tensors, found {}",
          plan.tensors.size(), types.size());
  plan.bytes_to = 0;
  std::map<DType, int64_t> weights;
  for (size_t i = 0; i < types.size(); ++i) {
    QuantizedTensor& tensor = plan.tensors[i];
    if (types[i] != tensor.to) tensor.note.clear();
    set_type(tensor, types[i], options);
    plan.bytes_to += tensor.bytes_to;
    if (tensor.is_matrix) weights[tensor.to] += tensor.shape.elements();
  }
  int64_t most = 0;
  for (const auto& kind : file_types()) {
    const auto found = weights.find(kind.base);
    if (found == weights.end() || found->second <= most) continue;
    most = found->second;
    plan.type = kind.type;
  }
  plan.conversion.metadata.set("general.file_type", traits(plan.type).number);
}

uint64_t padded_bytes(const QuantizePlan& plan, DType type, const Shape& shape) {
  return aligned_up(tensor_bytes(type, shape), gguf_alignment(plan.conversion.metadata, "quantize"));
}

uint64_t gguf_bytes(const QuantizePlan& plan) {
  Metadata metadata = plan.conversion.metadata;
  keep_hf_files(plan.conversion.files, metadata);
  std::vector<TensorEntry> entries;
  uint64_t bytes = 0;
  for (const auto& tensor : plan.tensors) {
    entries.push_back(
        {.name = tensor.name, .type = tensor.to, .shape = tensor.shape, .bytes = tensor.bytes_to});
    bytes += padded_bytes(plan, tensor.to, tensor.shape);
  }
  return bytes + make_gguf_header(entries, metadata, "quantize").size();
}

Tensor quantized_tensor(const Checkpoint& source, const QuantizePlan& plan, size_t index,
                        const QuantizeOptions& options) {
  const QuantizedTensor& tensor = plan.tensors[index];
  const PlannedTensor& planned = plan.conversion.tensors[index];
  const Tensor values = make_tensor(source, planned);
  Tensor result;
  if (is_block(tensor.to) && tensor.to != tensor.from) {
    std::vector<float> weights;
    if (tensor.weighted) weights = options.importance->matrices.at(tensor.name).means();
    result = quantize_tensor(values, tensor.to, tensor.weighted ? &weights : nullptr,
                             fmt::format("{}: tensor '{}'", source.path(), tensor.name));
  } else {
    result = values.to(tensor.to);
  }
  if (!planned.whole.empty()) source.release(planned.whole);
  for (const auto& part : planned.parts) {
    if (!part.source.empty()) source.release(part.source);
  }
  return result;
}

void write_quantized(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& options,
                     const std::string& output, const std::function<void(uint64_t bytes)>& progress,
                     std::vector<Tensor> ready) {
  require_place(source, output, plan.bytes_to);
  std::vector<TensorEntry> entries;
  std::unordered_map<std::string, size_t> index;
  for (const auto& tensor : plan.tensors) {
    index.emplace(tensor.name, entries.size());
    entries.push_back({tensor.name, tensor.to, tensor.shape});
  }
  uint64_t done = 0;
  const auto provide = [&](const TensorEntry& entry) {
    stop_if_interrupted();
    const size_t i = index.at(entry.name);
    Tensor result = ready.empty() ? quantized_tensor(source, plan, i, options) : std::exchange(ready[i], {});
    done += plan.tensors[i].bytes_from;
    if (progress) progress(done);
    return result;
  };
  Metadata metadata = plan.conversion.metadata;
  if (container_of(output) == Container::gguf) {
    keep_hf_files(plan.conversion.files, metadata);
    write_gguf(output, entries, metadata, provide);
    return;
  }
  QkvWriter writer(output, entries, metadata, {plan.conversion.files.begin(), plan.conversion.files.end()});
  const std::vector<TensorEntry> order = writer.entries();
  for (const auto& entry : order) writer.write(entry.name, provide(entry));
  writer.finish();
}

}  // namespace qkv
