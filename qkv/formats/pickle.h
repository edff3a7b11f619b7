// Python pickles (protocols 0 to 5, https://github.com/python/cpython/blob/main/Lib/pickletools.py) as data:
// the values become a tree, and nothing is ever imported, called or executed. A name of a class or function
// must be on a short list (pickle_names.cpp) of those that state dicts are made of; what calling one of them
// would give is then a fixed kind of value. Any other name is an error that says it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "qkv/tensor/dtype.h"

namespace qkv {

struct PickleValue;
// Values are owned by their Pickle, may be shared and may contain themselves: whoever walks them bounds the
// depth and the number of visits.
using PickleRef = const PickleValue*;

struct PickleNone {};
struct PickleBytes {
  std::string data;
};
// An integer beyond 64 bits: two's complement, least significant byte first.
struct PickleBigInteger {
  std::string bytes;
};
// A list, a tuple or a set.
struct PickleSequence {
  std::vector<PickleRef> items;
  bool is_tuple = false;
};
// A dict or an OrderedDict, in the order of insertion; a key may occur twice.
struct PickleDict {
  std::vector<std::pair<PickleRef, PickleRef>> items;
};
// What can be done with a name of the list.
enum class PickleRole {
  dtype,              // torch.float16: a value
  storage_type,       // torch.FloatStorage: in the persistent ids of storages
  type,               // torch.Tensor: as an argument
  rebuild_tensor,     // (storage, offset, size, stride, ...)
  rebuild_tensor_v3,  // and (..., requires_grad, hooks, dtype, metadata): dtypes without a storage class
  rebuild_from_type,  // (function, type, arguments, state): a tensor with attributes of its own
  first_argument,     // a wrapper that is transparent here: Parameter, torch.Size, set
  dict,               // OrderedDict
  device,             // torch.device: becomes the text "cuda:0"
  encode,             // _codecs.encode: how protocol 2 writes bytes
  numpy_dtype,
  numpy_scalar,
};
struct PickleName {
  std::string_view name;  // "torch.float16"; static
  PickleRole role = PickleRole::type;
  std::optional<DType> dtype = {};  // of a dtype or a storage_type; none for an untyped storage
};
struct PickleNumpyType {
  std::string code;  // "f8"
};
// torch's persistent id of a storage: where a tensor's elements are, outside of the pickle.
struct PickleStorage {
  std::string key;
  std::optional<DType> type = {};  // none: bytes, to be read as the tensor's own type
  uint64_t elements = 0;           // of `type`
  uint64_t view_offset = 0;        // elements before the first one that belongs to it (old files)
};
// Any of them as found in the file, unchecked; `type` may be null.
struct PickleTensor {
  PickleRef storage = nullptr;
  PickleRef offset = nullptr;
  PickleRef size = nullptr;
  PickleRef stride = nullptr;
  PickleRef type = nullptr;
};

struct PickleValue {
  std::variant<PickleNone, bool, int64_t, PickleBigInteger, double, std::string, PickleBytes, PickleSequence,
               PickleDict, PickleName, PickleNumpyType, PickleStorage, PickleTensor>
      data;
};

template <typename T>
const T* as(PickleRef value) {
  return value == nullptr ? nullptr : std::get_if<T>(&value->data);
}
// "the integer 3", "a text", "a dictionary": how error sentences call the value.
std::string describe(PickleRef value);

class Pickle {
 public:
  // Reads the pickle that `bytes` begin with. Throws Error `<where>: byte 17: ...` for bytes that are no
  // pickle, and for names that are not on the list. Memory stays within a fixed multiple of the bytes read.
  Pickle(std::span<const std::byte> bytes, std::string_view where);

  PickleRef root() const { return root_; }
  // The length of the pickle; what follows is not its.
  size_t size() const { return size_; }
  // All storages that it names, by their key, whether or not the root leads to them.
  std::map<std::string, const PickleStorage*> storages() const;

 private:
  friend class Unpickler;
  std::deque<PickleValue> values_;
  PickleRef root_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qkv
