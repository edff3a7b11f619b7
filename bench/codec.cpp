// The lossless codecs on one thread: kinds of tensors by codecs, size beside the order-0 entropy of the byte
// planes, encoding and decoding speed. Processor time, medians; chunks of 1 MiB as `.qkv` files have them.
//   bench_codec [--megabytes 16] [--model CHECKPOINT ...] [--tensor PART] [--codec NAME] [--slow] [--json]
// A checkpoint's floating-point tensors are taken as bf16. --slow adds zstd -19.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/codec/codec.h"
#include "qkv/codec/split.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/rng.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/machine.h"

namespace qkv {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr int kRounds = 7;

struct Kind {
  std::string name;
  Elements elements;
  std::vector<std::byte> bytes;
};

struct Codec {
  std::string name;
  CodecOptions options;
};

struct Result {
  double share = 0, encode = 0, decode = 0;  // of the size; bytes per second
};

// Processor time: there is one thread, and other programs do not count.
double now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <typename T, typename Make>
std::vector<std::byte> made(size_t bytes, Make&& make) {
  std::vector<std::byte> out(bytes / sizeof(T) * sizeof(T));
  for (size_t i = 0; i < out.size(); i += sizeof(T)) {
    const T value = make();
    std::memcpy(out.data() + i, &value, sizeof(T));
  }
  return out;
}

std::vector<Kind> random_kinds(size_t bytes) {
  Rng rng(1);
  const auto normal = [&] { return 0.02f * rng.normal(); };
  std::vector<Kind> kinds;
  kinds.push_back({"Gaussian bf16", Elements::words16, made<bf16>(bytes, [&] { return to_bf16(normal()); })});
  kinds.push_back({"Gaussian f16", Elements::words16, made<f16>(bytes, [&] { return to_f16(normal()); })});
  kinds.push_back({"Gaussian f32", Elements::words32, made<float>(bytes, normal)});
  // What eight-bit and four-bit quantizers leave after dequantizing one large block.
  kinds.push_back({"256 values, bf16", Elements::words16, made<bf16>(bytes, [&] {
                     return to_bf16((std::clamp(std::round(40 * rng.normal()), -128.0f, 127.0f) + 0.0f) /
                                    1024);
                   })});
  kinds.push_back({"16 values, bf16", Elements::words16, made<bf16>(bytes, [&] {
                     return to_bf16(static_cast<float>(static_cast<int>(rng.next_u32() % 16) - 8) / 64);
                   })});
  // Nine of ten values are among 256.
  kinds.push_back({"9 in 10 of 256, bf16", Elements::words16, made<bf16>(bytes, [&] {
                     return rng.next_u32() % 10 == 0 ? to_bf16(normal())
                                                     : to_bf16(static_cast<float>(rng.next_u32() % 256) / 64);
                   })});
  return kinds;
}

Kind stored_kind(const std::string& path) {
  const auto checkpoint = open_checkpoint(path);
  Kind kind{path.substr(path.rfind('/') + 1) + ", bf16", Elements::words16, {}};
  for (const TensorEntry& entry : checkpoint->entries()) {
    if (!is_floating(entry.type) || entry.shape.rank() < 2) continue;
    const Tensor tensor = checkpoint->read(entry.name).to(DType::bf16);
    kind.bytes.insert(kind.bytes.end(), tensor.raw(), tensor.raw() + tensor.bytes());
  }
  require(!kind.bytes.empty(), "{}: expected matrices of floating-point numbers, found none", path);
  return kind;
}

CodecOptions only(bool dictionary, bool split, bool zstd, int entries = 0, int level = 3) {
  CodecOptions options;
  options.zstd_level = level;
  options.dictionary = dictionary;
  options.split = split;
  options.zstd = zstd;
  options.dictionary_entries = entries;
  return options;
}

std::vector<Codec> codecs(bool slow) {
  std::vector<Codec> all = {{"raw", only(false, false, false)},
                            {"dictionary 256", only(true, false, false, 256)},
                            {"dictionary 1024", only(true, false, false, 1024)},
                            {"dictionary 2048", only(true, false, false, 2048)},
                            {"dictionary", only(true, false, false)},  // of the size that is smallest
                            {"split", only(false, true, false)},
                            {"zstd -3", only(false, false, true)}};
  if (slow) all.push_back({"zstd -19", only(false, false, true, 0, 19)});
  all.push_back({"auto", {}});
  return all;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The mean entropy of the chunks' planes: what codes of their own could reach.
double limit_of(const Kind& kind) {
  double bytes = 0;
  for (size_t begin = 0; begin < kind.bytes.size(); begin += kChunk) {
    const auto chunk = std::span(kind.bytes).subspan(begin, std::min(kChunk, kind.bytes.size() - begin));
    bytes += plane_entropy_share(chunk, kind.elements) * static_cast<double>(chunk.size());
  }
  return bytes / static_cast<double>(kind.bytes.size());
}

Result measure(const Kind& kind, const Codec& codec) {
  struct Encoded {
    CodecId codec;
    std::vector<std::byte> bytes;
  };
  std::vector<Encoded> encoded;
  std::vector<double> encode, decode;
  Result result;
  ChunkEncoder encoder(codec.options);
  std::vector<std::byte> back(kind.bytes.size());
  const auto size = static_cast<double>(kind.bytes.size());
  for (int round = 0; round <= kRounds; ++round) {
    double seconds = 0;
    size_t stored = 0;
    encoded.clear();
    for (size_t begin = 0; begin < kind.bytes.size(); begin += kChunk) {
      const auto chunk = std::span(kind.bytes).subspan(begin, std::min(kChunk, kind.bytes.size() - begin));
      const double start = now();
      const auto form = encoder.encode(chunk, kind.elements);
      seconds += now() - start;
      stored += form.data.size();
      encoded.push_back({form.codec, {form.data.begin(), form.data.end()}});
    }
    encode.push_back(size / seconds);
    const double start = now();
    for (size_t i = 0; i < encoded.size(); ++i) {
      const size_t begin = i * kChunk;
      decode_chunk(encoded[i].codec, encoded[i].bytes,
                   std::span(back).subspan(begin, std::min(kChunk, kind.bytes.size() - begin)));
    }
    decode.push_back(size / (now() - start));
    require(back == kind.bytes, "{} of {} gives other bytes back", codec.name, kind.name);
    result.share = static_cast<double>(stored) / size;
  }
  encode.erase(encode.begin());  // the first round meets fresh memory
  decode.erase(decode.begin());
  result.encode = median(encode);
  result.decode = median(decode);
  return result;
}

void run(const std::vector<std::string>& arguments) {
  size_t megabytes = 16;
  bool json = false, slow = false;
  std::string tensor, codec_name;
  std::vector<std::string> models;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--json") {
      json = true;
    } else if (arguments[i] == "--slow") {
      slow = true;
    } else if (arguments[i] == "--megabytes" && i + 1 < arguments.size()) {
      megabytes = std::stoul(arguments[++i]);
    } else if (arguments[i] == "--tensor" && i + 1 < arguments.size()) {
      tensor = arguments[++i];
    } else if (arguments[i] == "--codec" && i + 1 < arguments.size()) {
      codec_name = arguments[++i];
    } else if (arguments[i] == "--model" && i + 1 < arguments.size()) {
      models.push_back(arguments[++i]);
    } else {
      fail(
          "bench_codec: expected --megabytes N, --model PATH, --tensor PART, --codec NAME, --slow or --json, "
          "found "
          "'{}'",
          arguments[i]);
    }
  }
  std::vector<Kind> kinds = random_kinds(megabytes << 20);
  for (const auto& path : models) kinds.push_back(stored_kind(path));
  Json table = Json::array();
  if (!json) {
    fmt::print("{}, {}, one thread, chunks of 1 MiB, GB = 10^9 bytes of what is encoded\n\n",
               cpu_features().model, isa_name(active_isa()));
    fmt::print("{:<24} {:<16} {:>8} {:>8} {:>12} {:>12}\n", "tensor", "codec", "size %", "limit %",
               "encode GB/s", "decode GB/s");
  }
  for (const Kind& kind : kinds) {
    if (kind.name.find(tensor) == std::string::npos) continue;
    const double limit = limit_of(kind);
    for (const Codec& codec : codecs(slow)) {
      if (codec.name.find(codec_name) == std::string::npos) continue;
      const Result result = measure(kind, codec);
      if (json) {
        table.push_back({{"tensor", kind.name},
                         {"codec", codec.name},
                         {"share", result.share},
                         {"plane_entropy", limit},
                         {"encode_bytes_per_second", result.encode},
                         {"decode_bytes_per_second", result.decode}});
      } else {
        fmt::print("{:<24} {:<16} {:>8.2f} {:>8.2f} {:>12.2f} {:>12.2f}\n", kind.name, codec.name,
                   100 * result.share, 100 * limit, result.encode / 1e9, result.decode / 1e9);
      }
      std::fflush(stdout);
    }
  }
  if (json) fmt::print("{}\n", dump_json(table));
}

}  // namespace
}  // namespace qkv

int main(int argc, char** argv) {
  try {
    qkv::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 2;
  }
}
