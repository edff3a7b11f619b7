// Writing PyTorch's checkpoint files. The pickle is of protocol 2 with the opcodes that torch.save itself
// uses, because torch.load(weights_only=True) understands no others.
#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/content.h"
#include "qkv/formats/pytorch.h"

namespace qkv {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr std::string_view kFolder = "archive/";

struct PytorchType {
  DType type;
  std::string_view storage;  // the class of its storages; "" where it has none and is named by itself
  std::string_view dtype;
};

constexpr PytorchType kTypes[] = {
    {DType::f64, "DoubleStorage", "float64"},
    {DType::f32, "FloatStorage", "float32"},
    {DType::f16, "HalfStorage", "float16"},
    {DType::bf16, "BFloat16Storage", "bfloat16"},
    {DType::i64, "LongStorage", "int64"},
    {DType::i32, "IntStorage", "int32"},
    {DType::i16, "ShortStorage", "int16"},
    {DType::i8, "CharStorage", "int8"},
    {DType::u8, "ByteStorage", "uint8"},
    {DType::boolean, "BoolStorage", "bool"},
    {DType::f8_e4m3, "", "float8_e4m3fn"},
    {DType::f8_e5m2, "", "float8_e5m2"},
    {DType::u64, "", "uint64"},
    {DType::u32, "", "uint32"},
    {DType::u16, "", "uint16"},
};

const PytorchType* find_type(DType type) {
  for (const auto& row : kTypes) {
    if (row.type == type) return &row;
  }
  return nullptr;
}

std::string supported_types() {
  std::string list;
  for (const auto& row : kTypes) list += fmt::format("{}{}", list.empty() ? "" : ", ", name(row.type));
  return list;
}

// The pickle of an OrderedDict of tensors, opcode by opcode.
class StateDictPickle {
 public:
  std::string make(const std::vector<TensorEntry>& entries) {
    out_ = "\x80\x02";  // PROTO 2
    empty_dict();
    out_ += '(';  // MARK
    for (size_t i = 0; i < entries.size(); ++i) {
      text(entries[i].name);
      tensor(entries[i], i);
    }
    out_ += "u.";  // SETITEMS, STOP
    return std::move(out_);
  }

 private:
  void number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xff);
  }
  void integer(uint64_t value) {
    if (value < 256) {
      out_ += 'K';  // BININT1
      number(value, 1);
    } else if (value < 65536) {
      out_ += 'M';  // BININT2
      number(value, 2);
    } else if (value <= INT32_MAX) {
      out_ += 'J';  // BININT
      number(value, 4);
    } else {
      out_ += "\x8a\x08";  // LONG1 of 8 bytes; the value is below 2^63
      number(value, 8);
    }
  }
  void text(std::string_view value) {
    out_ += 'X';  // BINUNICODE
    number(value.size(), 4);
    out_ += value;
  }
  // A class or a repeated text: written once, then taken from the memo.
  void memorized(const std::string& opcodes) {
    const auto [place, is_new] = memo_.emplace(opcodes, memo_.size());
    if (is_new) out_ += opcodes;
    out_ += is_new ? 'q' : 'h';  // BINPUT, BINGET; there are fewer than 256
    number(place->second, 1);
  }
  void global(std::string_view module, std::string_view name) {
    memorized(fmt::format("c{}\n{}\n", module, name));
  }
  void repeated_text(std::string_view value) {
    std::string opcodes = "X";
    for (int i = 0; i < 4; ++i) opcodes += static_cast<char>(value.size() >> (8 * i) & 0xff);
    memorized(opcodes + std::string(value));
  }
  void empty_dict() {
    global("collections", "OrderedDict");
    out_ += ")R";  // EMPTY_TUPLE, REDUCE
  }
  void tuple(std::span<const int64_t> values) {
    if (values.size() > 3) out_ += '(';
    for (const int64_t value : values) integer(static_cast<uint64_t>(value));
    constexpr std::array<std::string_view, 5> kClose = {")", "\x85", "\x86", "\x87", "t"};
    out_ += kClose[values.size()];  // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
  }
  void tensor(const TensorEntry& entry, size_t key) {
    const PytorchType& type = *find_type(entry.type);
    const bool has_storage_class = !type.storage.empty();
    global("torch._utils", has_storage_class ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
    out_ += "((";
    repeated_text("storage");
    if (has_storage_class) {
      global("torch", type.storage);
    } else {
      global("torch.storage", "UntypedStorage");
    }
    text(fmt::format("{}", key));
    repeated_text("cpu");
    integer(has_storage_class ? static_cast<uint64_t>(entry.shape.elements()) : entry.bytes);
    out_ += "tQ";  // TUPLE, BINPERSID
    integer(0);    // offset
    const int rank = entry.shape.rank();
    std::array<int64_t, Shape::kMaximumRank> dims = {};
    std::array<int64_t, Shape::kMaximumRank> strides = {};
    for (int i = rank - 1; i >= 0; --i) {
      const auto index = static_cast<size_t>(i);
      dims[index] = entry.shape[i];
      strides[index] = i == rank - 1 ? 1 : strides[index + 1] * std::max<int64_t>(dims[index + 1], 1);
    }
    tuple({dims.data(), static_cast<size_t>(rank)});
    tuple({strides.data(), static_cast<size_t>(rank)});
    out_ += '\x89';  // NEWFALSE: requires no gradient
    empty_dict();    // hooks
    if (!has_storage_class) global("torch", type.dtype);
    out_ += "tR";
  }

  std::string out_;
  std::map<std::string, size_t> memo_;
};

std::vector<TensorEntry> checked(std::vector<TensorEntry> entries, const std::string& path) {
  std::unordered_set<std::string_view> names;
  for (const auto& entry : entries) {
    const auto here = [&] { return fmt::format("[pytorch] {}: tensor '{}'", path, shown(entry.name)); };
    if (!names.insert(entry.name).second) fail("{}: expected once, found twice", here());
    if (first_invalid_utf8(entry.name)) fail("{}: expected a name in valid UTF-8", here());
    if (find_type(entry.type) == nullptr)
      fail("{}: expected one of the format's types, {}; found {}", here(), supported_types(),
           name(entry.type));
  }
  set_bytes_and_file(entries, "pytorch", path);
  return entries;
}

std::string record(std::string_view name) {
  return std::string(kFolder) + std::string(name);
}

}  // namespace

PytorchWriter::PytorchWriter(std::string path, std::vector<TensorEntry> entries)
    : sequence_("pytorch", path, checked(std::move(entries), path)), archive_(std::move(path)) {
  archive_.add(record("data.pkl"), StateDictPickle().make(sequence_.entries()), kAlignment);
  archive_.add(record("byteorder"), "little", kAlignment);
}

void PytorchWriter::write(std::string_view name, const Tensor& tensor) {
  const auto bytes = sequence_.accept(name, tensor);
  archive_.begin(record(fmt::format("data/{}", written_++)), bytes.size(), kAlignment);
  archive_.write(bytes);
  archive_.end();
}

void PytorchWriter::finish() {
  sequence_.require_complete();
  archive_.add(record("version"), "3\n", kAlignment);
  // Forty digits that tell files apart.
  archive_.add(record(".data/serialization_id"),
               fmt::format("{:020}{:020}", sequence_.entries().size(), archive_.crc32_of_all()), kAlignment);
  archive_.finish();
}

}  // namespace qkv
