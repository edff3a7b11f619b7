#include "conversion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/progress.h"
#include "qkv/models/convert.h"

namespace qkv {
namespace {

// "5GB", "500 MiB", "1000000".
uint64_t parse_size(std::string text) {
  uint64_t bytes = 0;
  try {
    CLI::AsSizeValue(true)(text);  // 1 GB = 10^9 bytes, 1 GiB = 2^30
    if (!CLI::detail::lexical_cast(text, bytes)) bytes = 0;
  } catch (const CLI::Error&) {
    bytes = 0;
  }
  require(bytes > 0, "--max-shard-size: expected a size such as 5GB or 500MB, found '{}'", text);
  return bytes;
}

}  // namespace

void ConversionFlags::add_to(CLI::App& command, const std::string& type_help) {
  command
      .add_option("OUT", output,
                  "What to write, by the form of its name: .gguf, .qkv, .safetensors, .pt (.pth, .bin), or "
                  "a directory as Hugging Face has them")
      ->required();
  command.add_option("--dtype", type, type_help);
  command.add_option("--max-shard-size", shard_size,
                     "Split the weights into files of at most this size, for example 2GB (default: 5GB for "
                     "directories)");
  command.add_flag(
      "--lossless", lossless,
      "Compress a .qkv file without loss: every bit comes back. Chunks of 1 MiB are stored in the "
      "smallest of several forms and are expanded when a tensor is read");
  command.add_option("--codec", codec,
                     "With --lossless: auto (the smallest; the default), dictionary, split, zstd or raw");
  command.add_option("--manifest", manifest,
                     "Write the name, type, shape and XXH3-128 hash of every tensor to this file");
  command.add_flag("--json", json, "Print the result as JSON");
}

std::optional<DType> ConversionFlags::dtype() const {
  if (type.empty()) return std::nullopt;
  const std::optional<DType> wanted = dtype_from_name(type);
  require(wanted == DType::f32 || wanted == DType::bf16 || wanted == DType::f16,
          "--dtype: expected f32, bf16 or f16, found '{}'", type);
  return wanted;
}

std::optional<CodecOptions> ConversionFlags::lossless_codec() const {
  if (!lossless) {
    require(codec.empty(), "--codec: expected beside --lossless, found alone");
    return std::nullopt;
  }
  if (codec.empty() || codec == "auto") return CodecOptions{};
  CodecOptions options;
  std::vector<std::string> names = {"auto"};
  for (int i = 0; i < kCodecCount; ++i) names.emplace_back(codec_name(static_cast<CodecId>(i)));
  require(std::find(names.begin(), names.end(), codec) != names.end(),
          "--codec: expected one of {}, found '{}'{}", fmt::join(names, ", "), codec,
          suggestion(codec, names));
  options.dictionary = codec == codec_name(CodecId::dictionary);
  options.split = codec == codec_name(CodecId::split);
  options.zstd = codec == codec_name(CodecId::zstd);
  return options;
}

void ConversionFlags::check() const {
  dtype();
  lossless_codec();
  if (!shard_size.empty()) parse_size(shard_size);
}

void write_checkpoint(const Checkpoint& source, const ConversionFlags& flags, std::optional<DType> type) {
  ConvertOptions options;
  options.type = type;
  if (!flags.shard_size.empty()) options.max_file_bytes = parse_size(flags.shard_size);
  options.manifest = flags.manifest;
  options.lossless = flags.lossless_codec();

  constexpr uint64_t kMega = 1'000'000;
  std::unique_ptr<Progress> progress;
  options.planned = [&](Container container, uint64_t bytes, size_t tensors) {
    if (!flags.json) {
      print_note(fmt::format("writing {} of {} in {} tensors", container_name(container), format_bytes(bytes),
                             tensors));
    }
    progress = std::make_unique<Progress>("writing", bytes / kMega, "MB");
  };
  options.progress = [&](uint64_t bytes) { progress->update(bytes / kMega); };
  const auto begin = std::chrono::steady_clock::now();
  const ConvertReport report = convert_checkpoint(source, flags.output, options);
  progress.reset();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  if (flags.json) {
    print_out(dump_json({{"output", flags.output},
                         {"format", container_name(report.container)},
                         {"tensors", report.tensors},
                         {"bytes", report.bytes},
                         {"file_bytes", report.file_bytes},
                         {"seconds", seconds},
                         {"notes", report.notes}}) +
              "\n");
    return;
  }
  for (const auto& note : report.notes) print_note("note: " + note);
  std::string file;
  if (options.lossless) {
    file = fmt::format(", {} in the file ({:.2f} %)", format_bytes(report.file_bytes),
                       100 * static_cast<double>(report.file_bytes) /
                           static_cast<double>(std::max<uint64_t>(1, report.bytes)));
  }
  print_out(fmt::format(
      "{}: {}, {} tensors, {}{} in {} ({}/s); {}\n", flags.output, container_name(report.container),
      report.tensors, format_bytes(report.bytes), file, format_duration(seconds),
      format_bytes(static_cast<uint64_t>(static_cast<double>(report.bytes) / std::max(seconds, 1e-3))),
      memory_sentence()));
}

}  // namespace qkv
