// A session's file: "QKVSESS1", the length of a JSON header and the header, the tokens as 32-bit integers,
// the state as its layers write it, and XXH3-64 of all that. Little-endian.
#include "qkv/engine/session.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/mapped_file.h"

namespace qkv {
namespace {

constexpr std::array<char, 8> kMagic = {'Q', 'K', 'V', 'S', 'E', 'S', 'S', '1'};
constexpr int64_t kVersion = 1;
constexpr uint64_t kMostHeader = uint64_t{64} << 20;
// Of each parameter: pieces of so many bytes, spread evenly.
constexpr uint64_t kPiece = 64, kPieces = 64;

class Hash {
 public:
  Hash() : state_(XXH3_createState()) { XXH3_64bits_reset(state_); }
  ~Hash() { XXH3_freeState(state_); }
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;
  void add(const void* data, size_t bytes) { XXH3_64bits_update(state_, data, bytes); }
  void add(std::string_view text) { add(text.data(), text.size()); }
  uint64_t value() const { return XXH3_64bits_digest(state_); }

 private:
  XXH3_state_t* state_;
};

std::string hex(uint64_t value) {
  return fmt::format("{:016x}", value);
}

std::string describe(const CacheOptions& cache) {
  return fmt::format("{} keys{}, {} values, pages of {}, window {}, sinks {}", name(cache.k_type),
                     cache.rotate_k ? " rotated" : "", name(cache.v_type), cache.page_tokens, cache.window,
                     cache.sinks);
}

// Reads from the front of a span.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}
  std::span<const std::byte> take(uint64_t count) {
    require(count <= bytes_.size(), "{}: the session ends early: {} bytes are left, {} are needed", path_,
            bytes_.size(), count);
    const auto part = bytes_.first(static_cast<size_t>(count));
    bytes_ = bytes_.subspan(static_cast<size_t>(count));
    return part;
  }
  void fill(std::span<std::byte> to) {
    const auto from = take(to.size());
    std::copy(from.begin(), from.end(), to.begin());
  }
  size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
};

// Everything but the state, whose reading needs the counts checked.
Session read_header(const Json& json, const std::string& path, const CacheOptions& cache,
                    uint64_t fingerprint, int64_t& tokens) {
  const JsonView header(json, path);
  require(header.integer("version") == kVersion, "{}: expected a session of version {}, found {}", path,
          kVersion, header.integer("version"));
  require(header.string("model") == hex(fingerprint),
          "{}: a session of another model: expected the fingerprint {}, found {}", path, hex(fingerprint),
          header.string("model"));
  require(header.string("cache") == describe(cache),
          "{}: a session with another cache: expected {}, found {}", path, describe(cache),
          header.string("cache"));
  Session session;
  tokens = header.integer("tokens");
  session.prompt_tokens = header.integer("prompt_tokens");
  const Json* seed = header.find("seed");
  require(seed != nullptr && seed->is_number_unsigned(), "{}: key 'seed': expected a number, found none", path);
  session.seed = seed->get<uint64_t>();
  session.draws = static_cast<uint64_t>(std::max<int64_t>(0, header.integer("draws")));
  session.surprise_limit = static_cast<float>(header.number("surprise_limit"));
  session.note = header.string_or("note", "");
  return session;
}

}  // namespace

uint64_t model_fingerprint(Model& model) {
  Hash hash;
  hash.add(model.info().architecture);
  model.visit("", [&](const std::string& parameter, Tensor& tensor) {
    hash.add(parameter + describe(tensor));
    const uint64_t bytes = tensor.bytes(), pieces = std::min(kPieces, bytes / kPiece);
    for (uint64_t i = 0; i < pieces; ++i) {
      hash.add(tensor.raw() + (bytes - kPiece) * i / std::max<uint64_t>(1, pieces - 1), kPiece);
    }
    if (pieces == 0) hash.add(tensor.raw(), static_cast<size_t>(bytes));
  });
  return hash.value();
}

void save_session(const std::string& path, const Session& session, const CacheOptions& cache,
                  uint64_t model) {
  AtomicFile file(path);
  Hash hash;
  const auto put = [&](std::span<const std::byte> bytes) {
    hash.add(bytes.data(), bytes.size());
    file.write(bytes);
  };
  const std::string header = dump_json({{"version", kVersion},
                                        {"model", hex(model)},
                                        {"cache", describe(cache)},
                                        {"tokens", session.tokens.size()},
                                        {"prompt_tokens", session.prompt_tokens},
                                        {"seed", session.seed},
                                        {"draws", session.draws},
                                        {"surprise_limit", session.surprise_limit},
                                        {"note", session.note}});
  const uint64_t size = header.size();
  put(std::as_bytes(std::span(kMagic)));
  put(std::as_bytes(std::span(&size, 1)));
  put(std::as_bytes(std::span(header.data(), header.size())));
  put(std::as_bytes(std::span(session.tokens)));
  session.state.write(put);
  const uint64_t checksum = hash.value();
  file.write(std::as_bytes(std::span(&checksum, 1)));
  file.commit();
}

Session load_session(const std::string& path, const Model& model, const CacheOptions& cache,
                     uint64_t fingerprint) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  constexpr size_t kFixed = kMagic.size() + 2 * sizeof(uint64_t);
  require(bytes.size() >= kFixed && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0,
          "{}: expected a session, which begins with {}", path,
          std::string_view(kMagic.data(), kMagic.size()));
  const size_t body = bytes.size() - sizeof(uint64_t);
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + body, sizeof(checksum));
  require(checksum == XXH3_64bits(bytes.data(), body),
          "{}: the session is damaged: its checksum does not fit", path);

  Reader reader(bytes.first(body).subspan(kMagic.size()), path);
  uint64_t header_size = 0;
  reader.fill(std::as_writable_bytes(std::span(&header_size, 1)));
  require(header_size <= kMostHeader, "{}: a session's header of {} bytes is too long", path, header_size);
  const auto header = reader.take(header_size);
  const Json json = parse_json({reinterpret_cast<const char*>(header.data()), header.size()}, path);
  int64_t tokens = 0;
  Session session = read_header(json, path, cache, fingerprint, tokens);
  require(
      0 < session.prompt_tokens && session.prompt_tokens <= tokens && tokens <= model.info().max_positions,
      "{}: a session of {} tokens, {} of them a prompt, cannot be one of a model with {} positions", path,
      tokens, session.prompt_tokens, model.info().max_positions);
  session.tokens.resize(static_cast<size_t>(tokens));
  reader.fill(std::as_writable_bytes(std::span(session.tokens)));
  for (const int32_t id : session.tokens) {
    require(0 <= id && id < model.info().vocabulary, "{}: expected token ids below {}, found {}", path,
            model.info().vocabulary, id);
  }
  session.state = model.make_state(cache);
  session.state.read([&](std::span<std::byte> to) { reader.fill(to); }, tokens - 1);
  require(reader.left() == 0, "{}: expected the end of the session, found {} bytes more", path,
          reader.left());
  return session;
}

}  // namespace qkv
