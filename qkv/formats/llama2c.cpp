#include "qkv/formats/llama2c.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "qkv/core/error.h"
#include "qkv/formats/byte_reader.h"
#include "qkv/formats/content.h"

namespace qkv {
namespace {

constexpr uint32_t kMagic = 0x616b3432;  // "ak42"
constexpr uint64_t kLegacyHeaderBytes = 7 * 4;
constexpr uint64_t kHeaderBytes = 256;

// Lengths in a damaged header multiply to more than 64 bits.
using Wide = unsigned __int128;

struct Defect {
  std::string_view expected;
  std::string found;
};

// What is wrong with the numbers themselves.
std::optional<Defect> defect_of(const Llama2cHeader& h) {
  for (const int64_t value : {h.dim, h.hidden_dim, h.layers, h.heads, h.kv_heads, h.vocabulary, h.context}) {
    if (value <= 0) {
      return Defect{
          "seven positive sizes (width, hidden width, layers, heads, key/value heads, vocabulary, context)",
          fmt::format("{} {} {} {} {} {} {}", h.dim, h.hidden_dim, h.layers, h.heads, h.kv_heads,
                      h.vocabulary, h.context)};
    }
  }
  if (h.dim % h.heads != 0 || h.dim / h.heads % 2 != 0) {
    return Defect{"heads of an even width", fmt::format("{} heads in a width of {}", h.heads, h.dim)};
  }
  if (h.heads % h.kv_heads != 0) {
    return Defect{"heads that are a multiple of the key/value heads",
                  fmt::format("{} heads and {} key/value heads", h.heads, h.kv_heads)};
  }
  if (h.version == 2 && h.group_size <= 0) {
    return Defect{"a positive number of elements per scale", fmt::format("{}", h.group_size)};
  }
  return std::nullopt;
}

enum class Kind { norm, matrix, skipped };

// One array of the file, for every layer or once.
struct Array {
  std::string_view name;  // "{}" stands for the layer
  int64_t rows;           // 0: a vector
  int64_t cols;
  Kind kind = Kind::matrix;
  int64_t rope_heads = 0;

  bool per_layer() const { return name.find("{}") != std::string_view::npos; }
  Wide elements() const { return Wide(std::max<int64_t>(rows, 1)) * static_cast<uint64_t>(cols); }
};

// The arrays in the order of the file.
std::vector<Array> arrays_of(const Llama2cHeader& h) {
  const int64_t head_dim = h.dim / h.heads;
  const int64_t kv_dim = h.kv_heads * head_dim;
  const Array embedding = {"model.embed_tokens.weight", h.vocabulary, h.dim};
  const Array attention_norm = {"model.layers.{}.input_layernorm.weight", 0, h.dim, Kind::norm};
  const Array hidden_norm = {"model.layers.{}.post_attention_layernorm.weight", 0, h.dim, Kind::norm};
  const Array last_norm = {"model.norm.weight", 0, h.dim, Kind::norm};
  const Array query = {"model.layers.{}.self_attn.q_proj.weight", h.dim, h.dim, Kind::matrix, h.heads};
  const Array key = {"model.layers.{}.self_attn.k_proj.weight", kv_dim, h.dim, Kind::matrix, h.kv_heads};
  const Array value = {"model.layers.{}.self_attn.v_proj.weight", kv_dim, h.dim};
  const Array output = {"model.layers.{}.self_attn.o_proj.weight", h.dim, h.dim};
  const Array gate = {"model.layers.{}.mlp.gate_proj.weight", h.hidden_dim, h.dim};
  const Array down = {"model.layers.{}.mlp.down_proj.weight", h.dim, h.hidden_dim};
  const Array up = {"model.layers.{}.mlp.up_proj.weight", h.hidden_dim, h.dim};
  const Array frequencies = {"", h.context, head_dim / 2, Kind::skipped};  // cosines, then sines

  std::vector<Array> arrays;
  if (h.version == 0) {
    arrays = {embedding, attention_norm, query, key,       value,       output,     hidden_norm,
              gate,      down,           up,    last_norm, frequencies, frequencies};
  } else {
    arrays = {attention_norm, hidden_norm, last_norm, embedding, query, key, value, output, gate, down, up};
  }
  if (!h.tied) arrays.push_back({"lm_head.weight", h.vocabulary, h.dim});
  return arrays;
}

// Bytes of one such array: f32, or int8 with a scale for each group.
Wide bytes_of(const Array& array, const Llama2cHeader& h) {
  if (h.group_size == 0 || array.kind != Kind::matrix) return array.elements() * 4;
  return array.elements() + array.elements() / static_cast<uint64_t>(h.group_size) * 4;
}

Wide expected_bytes(const Llama2cHeader& h) {
  Wide sum = h.bytes;
  for (const Array& array : arrays_of(h)) {
    sum += bytes_of(array, h) * (array.per_layer() ? static_cast<uint64_t>(h.layers) : 1);
  }
  return sum;
}

std::string as_text(Wide value) {
  return value >> 64 == 0 ? fmt::format("{}", static_cast<uint64_t>(value)) : "more than 2^64";
}

void read_sizes(ByteReader& reader, Llama2cHeader& h) {
  for (int64_t* size : {&h.dim, &h.hidden_dim, &h.layers, &h.heads, &h.kv_heads, &h.vocabulary, &h.context}) {
    *size = reader.number<int32_t>("sizes");
  }
}

// The header as the file has it, unchecked.
Llama2cHeader read_header(std::span<const std::byte> file, std::string_view where) {
  ByteReader reader(file, fmt::format("[llama2.c] {}", where));
  Llama2cHeader header;
  if (reader.number<uint32_t>("header") != kMagic) {
    reader = ByteReader(file, reader.where());
    read_sizes(reader, header);
    header.tied = header.vocabulary > 0;
    header.vocabulary = std::abs(header.vocabulary);
    header.bytes = kLegacyHeaderBytes;
    return header;
  }
  header.version = reader.number<int32_t>("version");
  require(header.version == 1 || header.version == 2, "[llama2.c] {}: version: expected 1 or 2, found {}",
          where, header.version);
  read_sizes(reader, header);
  header.tied = reader.number<uint8_t>("shared classifier") != 0;
  if (header.version == 2) header.group_size = reader.number<int32_t>("group size");
  header.bytes = kHeaderBytes;
  return header;
}

Json make_config(const Llama2cHeader& h) {
  Json config;
  config["architectures"] = {"LlamaForCausalLM"};
  config["model_type"] = "llama";
  config["attention_bias"] = false;
  config["mlp_bias"] = false;
  config["bos_token_id"] = 1;
  config["eos_token_id"] = 2;
  config["hidden_act"] = "silu";
  config["hidden_size"] = h.dim;
  config["intermediate_size"] = h.hidden_dim;
  config["max_position_embeddings"] = h.context;
  config["num_attention_heads"] = h.heads;
  config["num_hidden_layers"] = h.layers;
  config["num_key_value_heads"] = h.kv_heads;
  config["rms_norm_eps"] = 1e-5;   // run.c has these two
  config["rope_theta"] = 10000.0;  // as constants
  config["tie_word_embeddings"] = h.tied;
  config["torch_dtype"] = "float32";
  config["vocab_size"] = h.vocabulary;
  return config;
}

}  // namespace

uint64_t llama2c_file_bytes(std::span<const std::byte> header) {
  try {
    const Llama2cHeader h = read_header(header, "");
    const Wide bytes = defect_of(h) ? 0 : expected_bytes(h);
    return bytes >> 64 == 0 ? static_cast<uint64_t>(bytes) : 0;
  } catch (const Error&) {
    return 0;
  }
}

bool looks_like_llama2c(std::span<const std::byte> file) {
  if (file.size() < kLegacyHeaderBytes) return false;
  uint32_t first = 0;
  std::memcpy(&first, file.data(), sizeof(first));
  return first == kMagic || llama2c_file_bytes(file) == file.size();
}

Llama2cLayout parse_llama2c(std::span<const std::byte> file, std::string_view where) {
  Llama2cLayout layout;
  layout.header = read_header(file, where);
  const Llama2cHeader& h = layout.header;
  if (const auto defect = defect_of(h)) {
    fail("[llama2.c] {}: header: expected {}, found {}", where, defect->expected, defect->found);
  }
  const std::vector<Array> arrays = arrays_of(h);
  for (const Array& array : arrays) {
    if (h.group_size > 0 && array.kind == Kind::matrix &&
        array.elements() % static_cast<uint64_t>(h.group_size) != 0) {
      fail(
          "[llama2.c] {}: tensor '{}': expected elements that are a multiple of the group size, found {} and "
          "{}",
          where, array.name, as_text(array.elements()), h.group_size);
    }
  }
  const Wide expected = expected_bytes(h);
  if (expected != file.size()) {
    fail("[llama2.c] {}: expected {} bytes by the header, found {}", where, as_text(expected), file.size());
  }

  // Every size is now bounded by that of the file.
  uint64_t offset = h.bytes;
  for (const Array& array : arrays) {
    const auto bytes = static_cast<uint64_t>(bytes_of(array, h));
    const bool quantized = h.group_size > 0 && array.kind == Kind::matrix;
    for (int64_t layer = 0; layer < (array.per_layer() ? h.layers : 1); ++layer) {
      if (array.kind != Kind::skipped) {
        TensorEntry entry;
        entry.name =
            array.per_layer() ? fmt::format(fmt::runtime(array.name), layer) : std::string(array.name);
        entry.shape = array.rows == 0 ? Shape{array.cols} : Shape{array.rows, array.cols};
        entry.bytes = tensor_bytes(entry.type, entry.shape);
        layout.entries.push_back(std::move(entry));
        layout.places.push_back(
            {offset, quantized ? offset + static_cast<uint64_t>(array.elements()) : 0, array.rope_heads});
      }
      offset += bytes;
    }
  }
  return layout;
}

void read_llama2c_tensor(std::span<const std::byte> file, const Llama2cLayout& layout, size_t index,
                         std::span<float> values, std::string_view where) {
  const TensorEntry& entry = layout.entries[index];
  const Llama2cPlace& place = layout.places[index];
  const int64_t rows = entry.shape.rows(), cols = entry.shape.cols();
  const int64_t group = layout.header.group_size;
  const std::byte* data = file.data() + place.offset;
  const std::byte* scales = file.data() + place.scale_offset;

  // Groups count through the whole tensor: one may begin in the middle of a row.
  const auto read_row = [&](int64_t row, float* out) {
    if (place.scale_offset == 0) {
      std::memcpy(out, data + row * cols * 4, static_cast<size_t>(cols) * 4);
      return;
    }
    const int64_t end = (row + 1) * cols;
    for (int64_t begin = row * cols; begin < end;) {
      const int64_t number = begin / group;
      float scale;
      std::memcpy(&scale, scales + number * 4, sizeof(scale));
      if (!(scale >= 0 && std::isfinite(scale))) {
        fail("[llama2.c] {}: tensor '{}': group {}: expected a scale from 0 up, found {}", where, entry.name,
             number, scale);
      }
      const int64_t stop = std::min(end, (number + 1) * group);
      for (; begin < stop; ++begin) *out++ = static_cast<float>(static_cast<int8_t>(data[begin])) * scale;
    }
  };

  const int64_t head_dim = place.rope_heads == 0 ? 0 : rows / place.rope_heads;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t to = row;
    if (head_dim > 0) {
      const int64_t within = row % head_dim;
      to = row - within + within / 2 + within % 2 * (head_dim / 2);
    }
    read_row(row, values.data() + to * cols);
  }
}

Llama2cFile::Llama2cFile(std::string path)
    : Checkpoint(std::move(path)), file_(MappedFile::open(this->path())) {
  layout_ = parse_llama2c(file_->bytes(), this->path());
  const std::string name = std::filesystem::path(this->path()).filename().string();
  for (auto& entry : layout_.entries) entry.file = name;
  config_ = std::make_unique<Json>(make_config(layout_.header));
  set_entries(layout_.entries);
}

Llama2cFile::~Llama2cFile() = default;

Tensor Llama2cFile::read_entry(size_t index) const {
  const TensorEntry& entry = entries()[index];
  const Llama2cPlace& place = layout_.places[index];
  if (place.scale_offset == 0 && place.rope_heads == 0) {
    return mapped_tensor(entry, file_->bytes().data() + place.offset, file_);
  }
  Tensor tensor = Tensor::empty(entry.shape, entry.type);
  read_llama2c_tensor(file_->bytes(), layout_, index,
                      {tensor.data<float>(), static_cast<size_t>(tensor.elements())}, path());
  return tensor;
}

void Llama2cFile::release_entry(size_t index) const {
  const Llama2cPlace& place = layout_.places[index];
  const uint64_t elements = static_cast<uint64_t>(entries()[index].shape.elements());
  const uint64_t bytes = place.scale_offset == 0
                             ? elements * 4
                             : elements + elements / static_cast<uint64_t>(layout_.header.group_size) * 4;
  file_->drop_pages(place.offset, bytes);
}

}  // namespace qkv
