#include "qkv/formats/pickle_names.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/content.h"
#include "qkv/kernels/scalar_types.h"

namespace qkv {
namespace {

using Role = PickleRole;

// Python's standard library and PyTorch spell these; sorted by nothing but kind.
constexpr PickleName kNames[] = {
    {"torch._utils._rebuild_tensor", Role::rebuild_tensor},
    {"torch._utils._rebuild_tensor_v2", Role::rebuild_tensor},
    {"torch._utils._rebuild_tensor_v3", Role::rebuild_tensor_v3},
    {"torch._tensor._rebuild_from_type_v2", Role::rebuild_from_type},
    {"torch._utils._rebuild_parameter", Role::first_argument},
    {"torch._utils._rebuild_parameter_with_state", Role::first_argument},
    {"torch.nn.parameter.Parameter", Role::first_argument},
    {"torch.nn.parameter.Buffer", Role::first_argument},
    {"torch.Size", Role::first_argument},
    {"torch.serialization._get_layout", Role::first_argument},
    {"builtins.set", Role::first_argument},
    {"builtins.list", Role::first_argument},
    {"torch.Tensor", Role::type},
    {"torch.device", Role::device},
    {"collections.OrderedDict", Role::dict},
    {"collections.Counter", Role::dict},
    {"builtins.dict", Role::dict},
    {"_codecs.encode", Role::encode},
    {"numpy.dtype", Role::numpy_dtype},
    {"numpy.core.multiarray.scalar", Role::numpy_scalar},
    {"numpy._core.multiarray.scalar", Role::numpy_scalar},

    {"torch.float64", Role::dtype, DType::f64},
    {"torch.float32", Role::dtype, DType::f32},
    {"torch.float16", Role::dtype, DType::f16},
    {"torch.bfloat16", Role::dtype, DType::bf16},
    {"torch.float8_e4m3fn", Role::dtype, DType::f8_e4m3},
    {"torch.float8_e5m2", Role::dtype, DType::f8_e5m2},
    {"torch.int64", Role::dtype, DType::i64},
    {"torch.int32", Role::dtype, DType::i32},
    {"torch.int16", Role::dtype, DType::i16},
    {"torch.int8", Role::dtype, DType::i8},
    {"torch.uint64", Role::dtype, DType::u64},
    {"torch.uint32", Role::dtype, DType::u32},
    {"torch.uint16", Role::dtype, DType::u16},
    {"torch.uint8", Role::dtype, DType::u8},
    {"torch.bool", Role::dtype, DType::boolean},

    {"torch.DoubleStorage", Role::storage_type, DType::f64},
    {"torch.FloatStorage", Role::storage_type, DType::f32},
    {"torch.HalfStorage", Role::storage_type, DType::f16},
    {"torch.BFloat16Storage", Role::storage_type, DType::bf16},
    {"torch.LongStorage", Role::storage_type, DType::i64},
    {"torch.IntStorage", Role::storage_type, DType::i32},
    {"torch.ShortStorage", Role::storage_type, DType::i16},
    {"torch.CharStorage", Role::storage_type, DType::i8},
    {"torch.ByteStorage", Role::storage_type, DType::u8},
    {"torch.BoolStorage", Role::storage_type, DType::boolean},
    {"torch.UntypedStorage", Role::storage_type},
    {"torch.storage.UntypedStorage", Role::storage_type},
    {"torch.storage._UntypedStorage", Role::storage_type},
};

// Where Python 2, and files saved from a GPU by old versions, have another module for the same thing.
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kModules = {{
    {"__builtin__", "builtins"},
    {"torch.cuda", "torch"},
    {"torch.tensor", "torch._tensor"},
}};

PickleRef argument(const PickleName& function, const PickleSequence& arguments, size_t index) {
  require(index < arguments.items.size(), "{}: expected at least {} arguments, found {}", function.name,
          index + 1, arguments.items.size());
  return arguments.items[index];
}

[[noreturn]] void wrong(std::string_view function, std::string_view expected, PickleRef found) {
  fail("{}: expected {}, found {}", function, expected, describe(found));
}

std::string latin1_bytes(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const auto point = next_code_point(text, i);
    require(point && *point < 256, "_codecs.encode: expected characters of Latin-1, found others");
    bytes += static_cast<char>(*point);
  }
  return bytes;
}

PickleValue encoded(const PickleName& function, const PickleSequence& arguments) {
  const auto* text = as<std::string>(argument(function, arguments, 0));
  const auto* codec = as<std::string>(argument(function, arguments, 1));
  if (text == nullptr) wrong(function.name, "a text", arguments.items[0]);
  if (codec == nullptr || (*codec != "latin1" && *codec != "latin-1"))
    wrong(function.name, "the codec latin1", arguments.items[1]);
  return {PickleBytes{latin1_bytes(*text)}};
}

template <typename T>
T loaded(std::string_view bytes) {
  require(bytes.size() == sizeof(T), "numpy scalar: expected {} bytes, found {}", sizeof(T), bytes.size());
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

PickleValue numpy_scalar(const PickleName& function, const PickleSequence& arguments) {
  const auto* type = as<PickleNumpyType>(argument(function, arguments, 0));
  if (type == nullptr) wrong(function.name, "a numpy.dtype", arguments.items[0]);
  std::string_view bytes;
  const PickleRef data = argument(function, arguments, 1);
  if (const auto* raw = as<PickleBytes>(data)) {
    bytes = raw->data;
  } else if (const auto* text = as<std::string>(data)) {
    bytes = *text;  // Python 2
  } else {
    wrong(function.name, "bytes", data);
  }
  const std::string& code = type->code;
  if (code == "f8") return {loaded<double>(bytes)};
  if (code == "f4") return {double{loaded<float>(bytes)}};
  if (code == "f2") return {double{to_float(loaded<f16>(bytes))}};
  if (code == "i8") return {loaded<int64_t>(bytes)};
  if (code == "i4") return {int64_t{loaded<int32_t>(bytes)}};
  if (code == "i2") return {int64_t{loaded<int16_t>(bytes)}};
  if (code == "i1") return {int64_t{loaded<int8_t>(bytes)}};
  if (code == "u4") return {int64_t{loaded<uint32_t>(bytes)}};
  if (code == "u2") return {int64_t{loaded<uint16_t>(bytes)}};
  if (code == "u1") return {int64_t{loaded<uint8_t>(bytes)}};
  if (code == "b1") return {loaded<uint8_t>(bytes) != 0};
  if (code == "u8") {
    const auto value = loaded<uint64_t>(bytes);
    if (value <= INT64_MAX) return {static_cast<int64_t>(value)};
    return {PickleBigInteger{std::string(bytes) + '\0'}};
  }
  fail("{}: expected a number of at most 8 bytes, found type '{}'", function.name, shown(code));
}

PickleValue device_text(const PickleName& function, const PickleSequence& arguments) {
  const auto* kind = as<std::string>(argument(function, arguments, 0));
  if (kind == nullptr) wrong(function.name, "a text", arguments.items[0]);
  if (arguments.items.size() < 2) return {*kind};
  const auto* index = as<int64_t>(arguments.items[1]);
  if (index == nullptr) wrong(function.name, "an integer", arguments.items[1]);
  return {fmt::format("{}:{}", *kind, *index)};
}

// OrderedDict(), OrderedDict({...}) and, from Python 2, OrderedDict([[key, value], ...]).
PickleRef dict_of(const PickleName& function, const PickleSequence& arguments, PickleMaker make) {
  if (arguments.items.empty()) return make({PickleDict{}}, 0);
  const PickleRef source = arguments.items[0];
  if (as<PickleDict>(source) != nullptr) return source;
  const auto* pairs = as<PickleSequence>(source);
  if (pairs == nullptr) wrong(function.name, "a dictionary or a list of pairs", source);
  PickleDict dict;
  for (const PickleRef item : pairs->items) {
    const auto* pair = as<PickleSequence>(item);
    if (pair == nullptr || pair->items.size() != 2) wrong(function.name, "a list of pairs", item);
    dict.items.emplace_back(pair->items[0], pair->items[1]);
  }
  const size_t bytes = dict.items.size() * sizeof(dict.items[0]);
  return make({std::move(dict)}, bytes);
}

}  // namespace

const PickleName* find_pickle_name(std::string_view module, std::string_view name) {
  for (const auto& [old_module, new_module] : kModules) {
    if (module == old_module) module = new_module;
  }
  const std::string full = fmt::format("{}.{}", module, name);
  const auto it = std::find_if(std::begin(kNames), std::end(kNames),
                               [&](const PickleName& row) { return row.name == full; });
  return it == std::end(kNames) ? nullptr : it;
}

PickleRef call_pickle_name(const PickleName& function, const PickleSequence& arguments, PickleMaker make) {
  const auto nth = [&](size_t index) { return argument(function, arguments, index); };
  switch (function.role) {
    case Role::rebuild_tensor:
      return make({PickleTensor{nth(0), nth(1), nth(2), nth(3)}}, 0);
    case Role::rebuild_tensor_v3:
      return make({PickleTensor{nth(0), nth(1), nth(2), nth(3), nth(6)}}, 0);
    case Role::rebuild_from_type: {
      const auto* inner = as<PickleName>(nth(0));
      const auto* inner_arguments = as<PickleSequence>(nth(2));
      const bool rebuilds =
          inner != nullptr && (inner->role == Role::rebuild_tensor || inner->role == Role::rebuild_tensor_v3);
      if (!rebuilds || inner_arguments == nullptr)
        wrong(function.name, "a function that rebuilds a tensor", nth(0));
      return call_pickle_name(*inner, *inner_arguments, make);
    }
    case Role::first_argument:
      if (arguments.items.empty()) return make({PickleSequence{}}, 0);
      return nth(0);
    case Role::dict:
      return dict_of(function, arguments, make);
    case Role::device: {
      PickleValue text = device_text(function, arguments);
      const size_t bytes = std::get<std::string>(text.data).size();
      return make(std::move(text), bytes);
    }
    case Role::encode: {
      PickleValue bytes = encoded(function, arguments);
      const size_t size = std::get<PickleBytes>(bytes.data).data.size();
      return make(std::move(bytes), size);
    }
    case Role::numpy_dtype: {
      const auto* code = as<std::string>(nth(0));
      if (code == nullptr || code->size() > 8) wrong(function.name, "the code of a type", nth(0));
      return make({PickleNumpyType{*code}}, 0);
    }
    case Role::numpy_scalar:
      return make(numpy_scalar(function, arguments), 0);
    case Role::dtype:
    case Role::storage_type:
    case Role::type:
      break;
  }
  fail("{}: expected as a value, found a call", function.name);
}

PickleStorage pickle_storage(PickleRef persistent_id) {
  constexpr std::string_view kWhat = "persistent id";
  constexpr size_t kLongestKey = 128;
  const auto* id = as<PickleSequence>(persistent_id);
  if (id == nullptr || id->items.empty()) wrong(kWhat, "that of a storage", persistent_id);
  const auto* kind = as<std::string>(id->items[0]);
  if (kind == nullptr || *kind != "storage") {
    fail("{}: expected that of a storage, found {}", kWhat,
         kind != nullptr && *kind == "module"
             ? "a whole Python module (save its state_dict() instead)"
             : (kind != nullptr ? fmt::format("'{}'", shown(*kind)) : describe(id->items[0])));
  }
  require(id->items.size() == 5 || id->items.size() == 6, "{}: expected 5 or 6 items, found {}", kWhat,
          id->items.size());
  PickleStorage storage;
  const auto* type = as<PickleName>(id->items[1]);
  if (type == nullptr || type->role != Role::storage_type) wrong(kWhat, "a storage type", id->items[1]);
  storage.type = type->dtype;
  if (const auto* key = as<std::string>(id->items[2])) {
    storage.key = *key;
  } else if (const auto* number = as<int64_t>(id->items[2])) {
    storage.key = fmt::format("{}", *number);
  } else {
    wrong(kWhat, "a storage's key", id->items[2]);
  }
  require(storage.key.size() <= kLongestKey, "{}: expected a key of at most {} bytes, found {}", kWhat,
          kLongestKey, storage.key.size());
  const auto count = [&](PickleRef value) {
    const auto* number = as<int64_t>(value);
    if (number == nullptr || *number < 0) wrong(kWhat, "an integer from 0 up", value);
    return static_cast<uint64_t>(*number);
  };
  storage.elements = count(id->items[4]);
  if (id->items.size() == 6 && as<PickleNone>(id->items[5]) == nullptr) {
    // (key of the view, offset, elements): old files let storages be views of others.
    const auto* view = as<PickleSequence>(id->items[5]);
    if (view == nullptr || view->items.size() != 3)
      wrong(kWhat, "a view's key, offset and size", id->items[5]);
    storage.view_offset = count(view->items[1]);
  }
  return storage;
}

}  // namespace qkv
