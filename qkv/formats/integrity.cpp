#include "qkv/formats/integrity.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/content.h"
#include "qkv/formats/gguf.h"
#include "qkv/formats/qkv_file.h"
#include "qkv/formats/safetensors.h"
#include "qkv/formats/safetensors_header.h"

namespace qkv {
namespace {

using Bytes = std::span<const std::byte>;

bool all_zero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; });
}

TensorPlace place_of(const TensorEntry& entry, uint64_t offset) {
  const DTypeTraits& type = traits(entry.type);
  const auto block_bytes = static_cast<uint64_t>(type.block_bytes);
  return {entry.name,  entry.type,  entry.shape, offset, entry.bytes / block_bytes,
          block_bytes, entry.bytes, 0,           0};
}

std::string block_sentence(const TensorPlace& place) {
  return fmt::format("{} blocks of {} bytes, {} bytes", place.blocks, place.block_bytes, place.bytes);
}

// Looks at a GGUF file's tensors and at what is between them.
class GgufCheck {
 public:
  GgufCheck(Bytes file, const GgufRecords& records, IntegrityReport& report)
      : file_(file), records_(records), report_(report) {}

  void run() {
    for (const auto& item : records_.items) add_tensor(item);
    auto& places = report_.tensors;
    std::stable_sort(places.begin(), places.end(),
                     [](const TensorPlace& a, const TensorPlace& b) { return a.offset < b.offset; });
    const uint64_t first = places.empty() ? file_.size() : std::min<uint64_t>(places[0].offset, file_.size());
    if (!places.empty()) look_between("the header", records_.header_bytes, records_.data_begin, first);
    uint64_t end = 0;
    const TensorPlace* before = nullptr;
    for (size_t i = 0; i < places.size(); ++i) {
      TensorPlace& place = places[i];
      if (place.bytes == 0) continue;
      if (before != nullptr && place.offset < end) {
        problem(
            false,
            "tensor '{}': expected bytes of its own from offset {} on, found it at offset {}, on those of "
            "tensor '{}'",
            shown(place.name), end, place.offset, shown(before->name));
      }
      end = std::max(end, place.offset + place.bytes);
      before = &place;
      measure_gap(place, i + 1 < places.size() ? places[i + 1].offset : file_.size(), i + 1 == places.size());
    }
  }

 private:
  template <typename... Args>
  void problem(bool repairable, fmt::format_string<Args...> text, Args&&... args) {
    report_.findings.push_back({fmt::format(text, std::forward<Args>(args)...), repairable});
  }

  void add_tensor(const GgufRecords::Item& item) {
    uint64_t offset = 0;
    const bool far = __builtin_add_overflow(records_.data_begin, item.offset, &offset);
    const TensorPlace place = place_of(item.entry, offset);
    const uint64_t left = far || offset > file_.size() ? 0 : file_.size() - offset;
    if (far || place.bytes > left) {
      problem(false, "tensor '{}': expected {} ({}) at offset {} of the file, found {} bytes: it is cut off",
              shown(place.name), block_sentence(place), name(place.type), offset, left);
      return;
    }
    if (item.offset % report_.alignment != 0) {
      problem(true, "tensor '{}': expected an offset that is a multiple of {}, found {}", shown(place.name),
              report_.alignment, item.offset);
    }
    report_.tensors.push_back(place);
  }

  // What follows a tensor: padding up to the alignment, and nothing more.
  void measure_gap(TensorPlace& place, uint64_t next, bool last) {
    const uint64_t end = place.offset + place.bytes;
    place.gap = next > end ? next - end : 0;
    // The alignment counts from the start of the data, which is itself aligned.
    const uint64_t relative = end - records_.data_begin;
    place.padding = aligned_up(relative, report_.alignment) - relative;
    if (next < end) return;  // an overlap, which has its own sentence
    const std::string subject = fmt::format("tensor '{}'", shown(place.name));
    if (place.gap == place.padding) {
      if (!all_zero(file_.subspan(end, place.gap)))
        problem(true, "{}: expected zeros in the {} bytes of padding behind it, found others", subject,
                place.gap);
    } else if (place.gap < place.padding) {
      if (last) {
        problem(
            true,
            "{}: expected {} bytes of padding to a multiple of {} behind it, found {} at the end of the file",
            subject, place.padding, report_.alignment, place.gap);
      }  // else the next tensor's offset is wrong, which has its own sentence
    } else {
      look_between(subject, end, end + place.padding, next);
    }
  }

  // From `begin` to `padded` is padding; from there to `next` nothing should be.
  void look_between(const std::string& subject, uint64_t begin, uint64_t padded, uint64_t next) {
    if (next <= padded) return;
    const bool zero = all_zero(file_.subspan(begin, next - begin));
    problem(zero, "{}: expected {} bytes of padding (to a multiple of {}) behind it, found {}{}", subject,
            padded - begin, report_.alignment, next - begin,
            zero ? "" : " that are not all zero and belong to no tensor");
  }

  Bytes file_;
  const GgufRecords& records_;
  IntegrityReport& report_;
};

void check_gguf(Bytes file, const std::string& path, IntegrityReport& report) {
  report.format = "gguf";
  const GgufRecords records = parse_gguf_records(file, path);
  report.alignment = records.alignment;
  GgufCheck(file, records, report).run();
}

void check_safetensors(Bytes file, const std::string& path, IntegrityReport& report) {
  report.format = "safetensors";
  report.alignment = 8;
  const SafetensorsHeader header =
      parse_safetensors_header(file, path);  // which leaves no gap and no overlap
  for (size_t i = 0; i < header.entries.size(); ++i) {
    const TensorPlace place = place_of(header.entries[i], header.offsets[i]);
    report.tensors.push_back(place);
    if (place.bytes > 0 && place.offset % place.block_bytes != 0) {
      report.findings.push_back(
          {fmt::format(
               "tensor '{}': expected an offset that is a multiple of its elements' {} bytes, found {}",
               shown(place.name), place.block_bytes, place.offset),
           true});
    }
  }
}

void check_qkv(Bytes file, const std::string& path, IntegrityReport& report) {
  report.format = "qkv";
  const QkvDirectory directory = parse_qkv(file, path);
  report.alignment = directory.alignment;
  for (const QkvRecord& record : directory.tensors) {
    report.tensors.push_back(place_of(record.entry, record.offset));
  }
  for (auto& defect : verify_qkv(file, directory, path, [](uint64_t, uint64_t) {})) {
    const bool padding = defect.find(": padding at offset ") != std::string::npos;
    report.findings.push_back({std::move(defect), padding});
  }
}

std::string bits_of(const Tensor& tensor) {
  const Tensor values =
      is_floating(tensor.dtype()) || is_block(tensor.dtype()) ? tensor.to(DType::f32) : tensor;
  return std::string(reinterpret_cast<const char*>(values.raw()), values.bytes());
}

// A tensor of the file's bytes, in memory of its own: they need not be aligned.
Tensor copied(Bytes file, const TensorPlace& place) {
  Tensor tensor = Tensor::empty(place.shape, place.type);
  if (place.bytes > 0) std::memcpy(tensor.raw(), file.data() + place.offset, place.bytes);
  return tensor;
}

template <typename Writer>
void write_all(Writer& writer, Bytes file, const std::vector<TensorPlace>& places) {
  for (const auto& entry : std::vector<TensorEntry>(writer.entries())) {
    const auto place = std::find_if(places.begin(), places.end(),
                                    [&](const TensorPlace& p) { return p.name == entry.name; });
    writer.write(entry.name, copied(file, *place));
  }
  writer.finish();
}

// The file's bytes with zeros between the records.
void write_qkv_again(Bytes file, const std::string& path, const std::string& output) {
  const QkvDirectory directory = parse_qkv(file, path);
  AtomicFile out(output);
  out.write(file.first(kQkvPrologueBytes));
  for (const auto* records : {&directory.files, &directory.tensors}) {
    for (const QkvRecord& record : *records) {
      if (record.chunks.empty()) continue;
      out.write(std::string(record.offset - out.size(), '\0'));
      out.write(file.subspan(record.offset, record.end() - record.offset));
    }
  }
  out.write(std::string(directory.offset - out.size(), '\0'));
  out.write(file.subspan(directory.offset));
  out.commit();
}

void write_again(Bytes file, const std::string& path, const IntegrityReport& report,
                 const std::string& output) {
  std::vector<TensorEntry> entries;
  for (const auto& place : report.tensors)
    entries.push_back({.name = place.name, .type = place.type, .shape = place.shape, .bytes = place.bytes});
  if (report.format == "gguf") {
    GgufWriter writer(output, entries, parse_gguf_records(file, path).metadata);
    write_all(writer, file, report.tensors);
  } else if (report.format == "safetensors") {
    const Metadata metadata = parse_safetensors_header(file, path).metadata;
    std::map<std::string, std::string> texts;
    for (const auto& [key, value] : metadata.values()) texts[key] = std::get<std::string>(value);
    SafetensorsWriter writer(output, entries, TensorOrder::aligned, texts);
    write_all(writer, file, report.tensors);
  } else {
    write_qkv_again(file, path, output);
  }
}

// Bytes and dequantized values of every tensor, before and after.
void require_equal(Bytes before, const IntegrityReport& report, const std::string& written) {
  const IntegrityReport after = check_integrity(written);
  require(after.ok(), "{}: {}", written, after.ok() ? "" : after.findings[0].sentence);
  require(after.tensors.size() == report.tensors.size(), "{}: expected {} tensors, found {}", written,
          report.tensors.size(), after.tensors.size());
  if (report.format == "qkv") return;  // its checksums were checked, and came from the source
  const auto file = MappedFile::open(written);
  for (const TensorPlace& place : report.tensors) {
    const auto found = std::find_if(after.tensors.begin(), after.tensors.end(),
                                    [&](const TensorPlace& p) { return p.name == place.name; });
    bool equal = found != after.tensors.end() && found->type == place.type && found->shape == place.shape;
    if (equal) {
      const Tensor own = copied(file->bytes(), *found), source = copied(before, place);
      equal = (place.bytes == 0 || std::memcmp(own.raw(), source.raw(), place.bytes) == 0) &&
              bits_of(own) == bits_of(source);
    }
    require(equal, "{}: tensor '{}': expected the values that it had, found others", written,
            shown(place.name));
  }
}

}  // namespace

bool IntegrityReport::repairable() const {
  return !findings.empty() && std::all_of(findings.begin(), findings.end(),
                                          [](const IntegrityFinding& finding) { return finding.repairable; });
}

IntegrityReport check_integrity(const std::string& path) {
  IntegrityReport report;
  try {
    if (std::filesystem::is_directory(path)) {
      const auto checkpoint = open_checkpoint(path);
      report.format = checkpoint->format_name();
      for (auto& defect : checkpoint->stored().verify())
        report.findings.push_back({std::move(defect), false});
      return report;
    }
    const auto file = MappedFile::open(path);
    const Bytes bytes = file->bytes();
    report.file_bytes = bytes.size();
    if (looks_like_gguf(bytes)) {
      check_gguf(bytes, path, report);
    } else if (looks_like_qkv(bytes)) {
      check_qkv(bytes, path, report);
    } else if (path.ends_with(".safetensors")) {
      check_safetensors(bytes, path, report);
    } else {
      const auto checkpoint = open_checkpoint(path);
      report.format = checkpoint->format_name();
      for (auto& defect : checkpoint->stored().verify())
        report.findings.push_back({std::move(defect), false});
    }
  } catch (const Error& error) {
    report.findings.push_back({error.what(), false});
  }
  return report;
}

void repair_layout(const std::string& path, const std::string& output) {
  const IntegrityReport report = check_integrity(path);
  require(report.format == "gguf" || report.format == "safetensors" || report.format == "qkv",
          "{}: expected a GGUF, safetensors or .qkv file to lay out again, found {}", path,
          report.format.empty() ? report.findings.empty() ? "another" : report.findings[0].sentence
                                : report.format);
  for (const auto& finding : report.findings) {
    require(finding.repairable, "{}: not laid out again, since a weight could be lost: {}", path,
            finding.sentence);
  }
  std::error_code ignored;
  require(!std::filesystem::equivalent(path, output, ignored), "{}: expected another place than the source's",
          output);
  const auto file = MappedFile::open(path);
  // Beside its place, under another name until it was compared.
  const std::filesystem::path place(output);
  const std::string unchecked =
      (place.parent_path() / fmt::format(".unchecked-{}-{}", ::getpid(), place.filename().string())).string();
  struct Removal {
    const std::string& path;
    ~Removal() {
      std::error_code unused;
      std::filesystem::remove(path, unused);
    }
  } const removal{unchecked};
  write_again(file->bytes(), path, report, unchecked);
  require_equal(file->bytes(), report, unchecked);
  std::error_code code;
  std::filesystem::rename(unchecked, output, code);
  require(!code, "{}: expected to be written, found: {}", output, code.message());
}

}  // namespace qkv
