#include "qkv/models/convert.h"

#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/progress.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/formats/pytorch.h"
#include "qkv/formats/qkv_file.h"
#include "qkv/formats/safetensors.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kShardBytes = 5'000'000'000;

std::string hash_of(const Tensor& tensor) {
  const XXH128_hash_t hash = XXH3_128bits(tensor.raw(), tensor.bytes());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

// Makes the planned tensors one at a time, and gives the source's pages back when the next one is wanted.
class Delivery {
 public:
  Delivery(const Checkpoint& source, const ConversionPlan& plan, const ConvertOptions& options)
      : source_(source), options_(options) {
    for (const auto& tensor : plan.tensors) planned_.emplace(tensor.entry.name, &tensor);
  }

  Tensor next(const TensorEntry& entry) {
    stop_if_interrupted();
    release();
    const PlannedTensor& planned = *planned_.at(entry.name);
    Tensor tensor = make_tensor(source_, planned);
    if (!planned.whole.empty()) used_.insert(planned.whole);
    for (const auto& part : planned.parts) {
      if (!part.source.empty()) used_.insert(part.source);
    }
    if (!options_.manifest.empty()) {
      manifest_.push_back({{"name", entry.name},
                           {"dtype", name(entry.type)},
                           {"shape", entry.shape.dims()},
                           {"bytes", tensor.bytes()},
                           {"xxh3_128", hash_of(tensor)}});
    }
    bytes_ += tensor.bytes();
    if (options_.progress) options_.progress(bytes_);
    return tensor;
  }

  void release() {
    for (const auto& tensor : used_) source_.release(tensor);
    used_.clear();
  }

  const Json& manifest() const { return manifest_; }

 private:
  const Checkpoint& source_;
  const ConvertOptions& options_;
  std::unordered_map<std::string, const PlannedTensor*> planned_;
  std::set<std::string> used_;
  Json manifest_ = Json::array();
  uint64_t bytes_ = 0;
};

template <typename Writer>
void stream(Writer&& writer, Delivery& delivery) {
  const std::vector<TensorEntry> order = writer.entries();
  for (const auto& entry : order) writer.write(entry.name, delivery.next(entry));
  writer.finish();
}

void write_directory(const std::string& output, const std::vector<TensorEntry>& entries,
                     const ConversionPlan& plan, Delivery& delivery, uint64_t shard_bytes) {
  AtomicDirectory directory(output);
  write_hf_weights(
      directory.path(), entries, [&](const TensorEntry& entry) { return delivery.next(entry); }, shard_bytes);
  for (const auto& [name, content] : plan.files) write_file(directory.path() + "/" + name, content);
  directory.commit();
}

void write_safetensors(const std::string& output, const std::vector<TensorEntry>& entries,
                       const ConversionPlan& plan, Delivery& delivery) {
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  const auto keep = [&](std::string_view key, const char* file) {
    if (const auto content = plan.files.find(file); content != plan.files.end())
      metadata[std::string(key)] = content->second;
  };
  keep(kHfConfig, "config.json");
  keep(kHfGenerationConfig, "generation_config.json");
  stream(SafetensorsWriter(output, entries, TensorOrder::aligned, metadata), delivery);
}

void write_container(Container container, const std::string& output, const std::vector<TensorEntry>& entries,
                     ConversionPlan& plan, Delivery& delivery, const ConvertOptions& options) {
  switch (container) {
    case Container::huggingface:
      return write_directory(output, entries, plan, delivery, options.max_file_bytes.value_or(kShardBytes));
    case Container::safetensors:
      return write_safetensors(output, entries, plan, delivery);
    case Container::pytorch:
      return stream(PytorchWriter(output, entries), delivery);
    case Container::gguf:
      keep_hf_files(plan.files, plan.metadata);
      write_gguf(
          output, entries, plan.metadata, [&](const TensorEntry& entry) { return delivery.next(entry); },
          options.max_file_bytes.value_or(UINT64_MAX));
      return;
    case Container::qkv: {
      QkvWriterOptions writing;
      writing.lossless = options.lossless;
      return stream(
          QkvWriter(output, entries, plan.metadata, {plan.files.begin(), plan.files.end()}, writing),
          delivery);
    }
  }
}

// Refuses what would destroy something.
void require_free_place(const std::string& source, const std::string& output, Container container) {
  std::error_code ignored;
  require(!fs::equivalent(source, output, ignored), "{}: expected another place than the source's", output);
  const fs::path parent = fs::absolute(output).parent_path();
  require(fs::is_directory(parent, ignored),
          "{}: expected an existing directory {} to write into, found none", output, parent.string());
  if (container != Container::huggingface) {
    require(!fs::is_directory(output, ignored), "{}: expected a file, found a directory", output);
    return;
  }
  require(!fs::exists(output, ignored) || fs::is_directory(output, ignored),
          "{}: expected a directory, found a file", output);
  require(!fs::exists(output, ignored) || fs::is_empty(output, ignored),
          "{}: expected a new or empty directory, found one with files", output);
}

void require_room(const std::string& output, uint64_t bytes) {
  std::error_code code;
  const fs::space_info space = fs::space(fs::absolute(output).parent_path(), code);
  if (code) return;  // a file system that does not say
  require(space.available >= bytes, "{}: expected {} of free disk space, found {}", output,
          format_bytes(bytes), format_bytes(space.available));
}

}  // namespace

Container container_of(const std::string& path) {
  const std::string extension = fs::path(path).extension().string();
  if (extension == ".gguf") return Container::gguf;
  if (extension == ".qkv") return Container::qkv;
  if (extension == ".safetensors") return Container::safetensors;
  if (extension == ".pt" || extension == ".pth" || extension == ".bin") return Container::pytorch;
  return Container::huggingface;
}

std::string_view container_name(Container container) {
  switch (container) {
    case Container::huggingface:
      return "a Hugging Face directory";
    case Container::safetensors:
      return "a safetensors file";
    case Container::pytorch:
      return "a PyTorch file";
    case Container::gguf:
      return "a GGUF file";
    case Container::qkv:
      return "a .qkv file";
  }
  return "";
}

ConvertReport convert_checkpoint(const std::string& source, const std::string& output,
                                 const ConvertOptions& options) {
  return convert_checkpoint(*open_checkpoint(source), output, options);
}

ConvertReport convert_checkpoint(const Checkpoint& source, const std::string& output_path,
                                 const ConvertOptions& options) {
  require(!options.type || *options.type == DType::f32 || *options.type == DType::bf16 ||
              *options.type == DType::f16,
          "dtype: expected f32, bf16 or f16, found {}", name(options.type.value_or(DType::f32)));
  require(options.max_file_bytes.value_or(1) > 0, "shard size: expected at least 1 byte, found 0");
  std::string output = output_path;
  while (output.size() > 1 && output.back() == '/') output.pop_back();
  const Container container = output == output_path ? container_of(output) : Container::huggingface;
  require(!options.lossless || container == Container::qkv,
          "{}: lossless compression: expected the name of a .qkv file, found that of {}", output,
          container_name(container));
  require_free_place(source.path(), output, container);
  ConversionPlan plan = plan_conversion(source, container, options.type);

  ConvertReport report;
  report.container = container;
  std::vector<TensorEntry> entries;
  for (const auto& planned : plan.tensors) {
    entries.push_back(planned.entry);
    report.bytes += tensor_bytes(planned.entry.type, planned.entry.shape);
  }
  report.tensors = entries.size();
  uint64_t beside = 0;
  for (const auto& [name, content] : plan.files) beside += content.size();
  // How much smaller a compressed file gets is known when it is written; a full disk is reported then.
  if (!options.lossless) require_room(output, report.bytes + beside);
  if (options.planned) options.planned(container, report.bytes, report.tensors);

  Delivery delivery(source, plan, options);
  write_container(container, output, entries, plan, delivery, options);
  delivery.release();
  std::error_code unknown;
  if (container != Container::huggingface) report.file_bytes = fs::file_size(output, unknown);
  if (unknown) report.file_bytes = 0;  // split into several
  if (!options.manifest.empty()) {
    save_json(options.manifest,
              {{"source", source.path()}, {"output", output}, {"tensors", delivery.manifest()}});
  }
  if (container == Container::pytorch || container == Container::safetensors) {
    plan.notes.push_back(
        container == Container::pytorch
            ? "the file holds tensors only: put config.json and the tokenizer beside it to load it as a model"
            : "the file holds no tokenizer: put one beside it to use it as a language model");
  }
  report.notes = std::move(plan.notes);
  return report;
}

}  // namespace qkv
