#include "qkv/formats/pytorch_contents.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"
#include "qkv/formats/pickle.h"
#include "qkv/formats/pytorch_state.h"
#include "qkv/formats/zip.h"

namespace qkv {
namespace {

constexpr std::string_view kMagicNumber("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
constexpr int64_t kLegacyProtocol = 1001;
// Of a record that is deflated in the file. (torch.save deflates none; archiving tools may.)
constexpr uint64_t kMaximumInflated = uint64_t{1} << 32;
// An expanded tensor (stride 0) has more elements than its storage; files with huge ones are not made by
// people.
constexpr int64_t kMaximumExpanded = int64_t{1} << 24;

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The tensors of a state as entries and places; storages are found by their key.
class Placement {
 public:
  Placement(std::string_view where, PytorchContents& contents) : where_(where), contents_(contents) {}

  void add_storage(const std::string& key, const PytorchStorage& storage) {
    if (!storages_.emplace(key, contents_.storages.size()).second)
      fail("{}: storage '{}': expected once, found twice", where_, shown(key));
    contents_.storages.push_back(storage);
  }

  void add_tensor(const std::string& name, const PickleTensor& tensor) {
    const std::string here = fmt::format("{}: tensor '{}'", where_, shown(name));
    if (!names_.emplace(name, 0).second) fail("{}: expected once, found twice", here);
    const auto* storage = as<PickleStorage>(tensor.storage);
    if (storage == nullptr) fail("{}: expected a storage, found {}", here, describe(tensor.storage));
    const auto found = storages_.find(storage->key);
    if (found == storages_.end())
      fail("{}: expected storage '{}' in the file, found none", here, shown(storage->key));

    TensorEntry entry;
    entry.name = name;
    entry.type = type_of(tensor, *storage, here);
    entry.shape = shape_of(tensor.size, here);
    try {
      entry.bytes = tensor_bytes(entry.type, entry.shape);
    } catch (const Error& error) {
      fail("{}: {}", here, error.what());
    }
    PytorchPlace place;
    place.storage = found->second;
    read_strides(tensor.stride, entry.shape, place, here);
    const int64_t offset = integer(tensor.offset, "offset", here);
    if (__builtin_add_overflow(static_cast<uint64_t>(offset), storage->view_offset, &place.first))
      fail("{}: offset: expected below 2^63, found more", here);
    require_inside(entry, place, here);
    contents_.entries.push_back(std::move(entry));
    contents_.places.push_back(place);
  }

  // Entries in the order of their data.
  void finish() {
    std::vector<size_t> order(contents_.entries.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto position = [&](size_t i) {
      return std::pair(contents_.storages[contents_.places[i].storage].begin, contents_.places[i].first);
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return position(a) < position(b); });
    std::vector<TensorEntry> entries;
    std::vector<PytorchPlace> places;
    for (const size_t i : order) {
      entries.push_back(std::move(contents_.entries[i]));
      places.push_back(contents_.places[i]);
    }
    contents_.entries = std::move(entries);
    contents_.places = std::move(places);
  }

 private:
  static int64_t integer(PickleRef value, std::string_view what, std::string_view here) {
    const auto* number = as<int64_t>(value);
    if (number == nullptr || *number < 0)
      fail("{}: {}: expected an integer from 0 up, found {}", here, what, describe(value));
    return *number;
  }

  static DType type_of(const PickleTensor& tensor, const PickleStorage& storage, std::string_view here) {
    if (tensor.type == nullptr) return storage.type.value_or(DType::u8);
    const auto* type = as<PickleName>(tensor.type);
    if (type == nullptr || type->role != PickleRole::dtype)
      fail("{}: expected a dtype, found {}", here, describe(tensor.type));
    return *type->dtype;
  }

  static Shape shape_of(PickleRef size, std::string_view here) {
    const auto* dims = as<PickleSequence>(size);
    if (dims == nullptr) fail("{}: shape: expected a tuple, found {}", here, describe(size));
    if (dims->items.size() > Shape::kMaximumRank)
      fail("{}: shape: expected at most {} dimensions, found {}", here, int{Shape::kMaximumRank},
           dims->items.size());
    std::vector<int64_t> values;
    for (const PickleRef dim : dims->items) values.push_back(integer(dim, "shape", here));
    try {
      return Shape(values);
    } catch (const Error& error) {
      fail("{}: {}", here, error.what());
    }
  }

  static void read_strides(PickleRef stride, const Shape& shape, PytorchPlace& place, std::string_view here) {
    const auto* values = as<PickleSequence>(stride);
    if (values == nullptr || values->items.size() != static_cast<size_t>(shape.rank()))
      fail("{}: strides: expected {}, found {}", here, shape.rank(),
           values == nullptr ? describe(stride) : fmt::format("{}", values->items.size()));
    uint64_t row_major = 1;
    for (int i = shape.rank() - 1; i >= 0; --i) {
      const auto index = static_cast<size_t>(i);
      place.strides[index] = integer(values->items[index], "strides", here);
      if (shape[i] != 1 && static_cast<uint64_t>(place.strides[index]) != row_major) place.contiguous = false;
      row_major *= static_cast<uint64_t>(shape[i]);
    }
    if (shape.elements() == 0) place.contiguous = true;
  }

  void require_inside(const TensorEntry& entry, const PytorchPlace& place, std::string_view here) const {
    const PytorchStorage& storage = contents_.storages[place.storage];
    const auto element = static_cast<uint64_t>(traits(entry.type).block_bytes);
    const uint64_t available = storage.bytes / element;
    if (entry.shape.elements() == 0) return;
    unsigned __int128 last = place.first;
    for (int i = 0; i < entry.shape.rank(); ++i) {
      last += static_cast<unsigned __int128>(entry.shape[i] - 1) *
              static_cast<unsigned __int128>(place.strides[static_cast<size_t>(i)]);
    }
    if (last >= available)
      fail(
          "{}: expected {} elements from {} on within its storage of {} elements, found them running past "
          "its end",
          here, entry.shape.str(), place.first, available);
    if (static_cast<uint64_t>(entry.shape.elements()) > available &&
        entry.shape.elements() > kMaximumExpanded)
      fail("{}: expected at most {} elements expanded from a storage of {}, found {}", here, kMaximumExpanded,
           available, entry.shape.elements());
  }

  std::string_view where_;
  PytorchContents& contents_;
  std::map<std::string, size_t> storages_;
  std::map<std::string, int> names_;
};

// The storages that the tensors of a state want, by key, with their types.
std::map<std::string, const PickleStorage*> wanted_storages(const PytorchState& state) {
  std::map<std::string, const PickleStorage*> wanted;
  for (const auto& [name, tensor] : state.tensors) {
    if (const auto* storage = as<PickleStorage>(tensor->storage)) wanted.emplace(storage->key, storage);
  }
  return wanted;
}

void place_all(PytorchState state, Placement& placement, PytorchContents& contents) {
  for (const auto& [name, tensor] : state.tensors) placement.add_tensor(name, *tensor);
  placement.finish();
  contents.metadata = std::move(state.metadata);
}

// The ZIP layout.

const ZipRecord& find_pickle(const std::vector<ZipRecord>& records, std::string_view where) {
  const ZipRecord* pickle = nullptr;
  for (const auto& record : records) {
    const std::string_view name = record.name;
    require(!name.ends_with("/constants.pkl"),
            "{}: expected a file of torch.save, found a TorchScript program", where);
    if (name != "data.pkl" && !name.ends_with("/data.pkl")) continue;
    if (pickle == nullptr || name.size() < pickle->name.size()) pickle = &record;
  }
  if (pickle == nullptr)
    fail("{}: expected a record data.pkl in the ZIP archive, found {} other records", where, records.size());
  return *pickle;
}

// The bytes of a record; `inflated` holds them where the file has them deflated.
std::span<const std::byte> record_bytes(std::span<const std::byte> file, const ZipRecord& record,
                                        std::string& inflated, std::string_view where) {
  if (!record.deflated) return stored_bytes(file, record);
  require(record.bytes <= kMaximumInflated, "{}: record '{}': expected at most {} bytes deflated, found {}",
          where, shown(record.name), kMaximumInflated, record.bytes);
  inflated.assign(record.bytes, '\0');
  inflate_zip_record(file, record, std::as_writable_bytes(std::span(inflated)), where);
  return std::as_bytes(std::span(inflated));
}

PytorchContents parse_archive(std::span<const std::byte> file, std::string_view where) {
  const std::vector<ZipRecord> records = read_zip_directory(file, where);
  const ZipRecord& pickle_record = find_pickle(records, where);
  const std::string folder = pickle_record.name.substr(0, pickle_record.name.size() - 8);
  std::string inflated;
  const Pickle pickle(record_bytes(file, pickle_record, inflated, where),
                      fmt::format("{}: {}", where, shown(pickle_record.name)));
  PytorchState state = pytorch_state(pickle, where);
  const auto wanted = wanted_storages(state);

  PytorchContents contents;
  Placement placement(where, contents);
  for (const auto& record : records) {
    const std::string_view name = record.name;
    if (!name.starts_with(folder)) continue;
    const std::string_view local = name.substr(folder.size());
    if (local == "byteorder" && text_of(record_bytes(file, record, inflated, where)) != "little")
      fail("{}: expected little-endian numbers, found a file of a big-endian machine", where);
    if (!local.starts_with("data/")) continue;
    const std::string key(local.substr(5));
    const auto found = wanted.find(key);
    if (found == wanted.end()) continue;
    const PickleStorage& storage = *found->second;
    const auto element = static_cast<uint64_t>(storage.type ? traits(*storage.type).block_bytes : 1);
    require(record.bytes / element == storage.elements && record.bytes % element == 0,
            "{}: record '{}': expected {} elements of {} bytes, found {} bytes", where, shown(name),
            storage.elements, element, record.bytes);
    placement.add_storage(key, {record.begin, record.stored_bytes, record.bytes, record.deflated});
  }
  place_all(std::move(state), placement, contents);
  return contents;
}

// The legacy layout.

PytorchContents parse_legacy(std::span<const std::byte> file, std::string_view where) {
  uint64_t position = 0;
  const auto next = [&](std::string_view what) {
    Pickle pickle(file.subspan(position), fmt::format("{}: {} at offset {}", where, what, position));
    position += pickle.size();
    return pickle;
  };
  const Pickle magic = next("magic number");
  const auto* number = as<PickleBigInteger>(magic.root());
  require(number != nullptr && number->bytes == kMagicNumber,
          "{}: expected a file of torch.save, found another pickle (of {})", where, describe(magic.root()));
  const Pickle protocol = next("protocol");
  const auto* version = as<int64_t>(protocol.root());
  require(version != nullptr && *version == kLegacyProtocol, "{}: protocol: expected {}, found {}", where,
          kLegacyProtocol, describe(protocol.root()));
  const Pickle machine = next("machine");
  if (const auto* facts = as<PickleDict>(machine.root())) {
    for (const auto& [key, value] : facts->items) {
      const auto* name = as<std::string>(key);
      const auto* flag = as<bool>(value);
      require(name == nullptr || *name != "little_endian" || flag == nullptr || *flag,
              "{}: expected little-endian numbers, found a file of a big-endian machine", where);
    }
  }
  const Pickle object = next("object");
  PytorchState state = pytorch_state(object, where);
  const Pickle keys = next("storage keys");
  const auto* list = as<PickleSequence>(keys.root());
  if (list == nullptr) fail("{}: storage keys: expected a list, found {}", where, describe(keys.root()));

  // A storage that only an optimizer uses has a place in the file too, so all of them must be known.
  const auto known = object.storages();
  PytorchContents contents;
  Placement placement(where, contents);
  for (const PickleRef item : list->items) {
    const auto* key = as<std::string>(item);
    const auto found = key == nullptr ? known.end() : known.find(*key);
    if (found == known.end())
      fail("{}: storage keys: expected those of the object's tensors, found {}", where,
           key == nullptr ? describe(item) : fmt::format("'{}'", shown(*key)));
    const PickleStorage& storage = *found->second;
    const auto element = static_cast<uint64_t>(storage.type ? traits(*storage.type).block_bytes : 1);
    const auto left = file.size() - position;
    uint64_t elements = 0;
    require(left >= sizeof(elements),
            "{}: storage '{}': expected its size at offset {}, found the end of the file", where, shown(*key),
            position);
    std::memcpy(&elements, file.data() + position, sizeof(elements));
    position += sizeof(elements);
    if (elements != storage.elements)
      fail("{}: storage '{}': expected {} elements, found {}", where, shown(*key), storage.elements,
           elements);
    if (elements > (file.size() - position) / element)
      fail("{}: storage '{}': expected {} bytes from offset {} on, found {} (is the file cut off?)", where,
           shown(*key), elements * element, position, file.size() - position);
    placement.add_storage(*key, {position, elements * element, elements * element, false});
    position += elements * element;
  }
  place_all(std::move(state), placement, contents);
  return contents;
}

bool looks_like_tar(std::span<const std::byte> file) {
  constexpr size_t kMagicOffset = 257;
  return file.size() >= 512 && text_of(file).substr(kMagicOffset, 5) == "ustar";
}

template <typename T>
void copy_strided(const T* from, T* to, const Shape& shape, const std::array<int64_t, 4>& strides, int dim) {
  const int64_t count = shape[dim];
  const int64_t stride = strides[static_cast<size_t>(dim)];
  if (dim == shape.rank() - 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
    return;
  }
  int64_t inner = 1;
  for (int i = dim + 1; i < shape.rank(); ++i) inner *= shape[i];
  for (int64_t i = 0; i < count; ++i)
    copy_strided(from + i * stride, to + i * inner, shape, strides, dim + 1);
}

}  // namespace

bool looks_like_pytorch(std::span<const std::byte> file) {
  const std::string_view text = text_of(file);
  return looks_like_zip(file) || (text.size() > 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5) ||
         looks_like_tar(file);
}

PytorchContents parse_pytorch(std::span<const std::byte> file, std::string_view where) {
  const std::string here = fmt::format("[pytorch] {}", where);
  if (looks_like_zip(file)) return parse_archive(file, here);
  require(!looks_like_tar(file),
          "{}: expected a ZIP archive or a pickle, found a tar archive as PyTorch before 0.1.10 wrote it "
          "(load and "
          "save it with a newer one)",
          here);
  if (!looks_like_pytorch(file)) {
    const std::string_view kind = content_by_signature(file);
    fail("{}: expected a ZIP archive or a pickle, found {}", here, kind.empty() ? "other data" : kind);
  }
  return parse_legacy(file, here);
}

Tensor gather(const TensorEntry& entry, const PytorchPlace& place, std::span<const std::byte> storage) {
  Tensor result = Tensor::empty(entry.shape, entry.type);
  if (entry.bytes == 0) return result;
  const auto element = static_cast<uint64_t>(traits(entry.type).block_bytes);
  const std::byte* from = storage.data() + place.first * element;
  if (place.contiguous) {
    std::memcpy(result.raw(), from, entry.bytes);
    return result;
  }
  // Elements of a storage may be unaligned in memory; units of this type say so to the compiler.
  const auto copy = [&](auto* unit) {
    using Unit = std::remove_pointer_t<decltype(unit)>;
    copy_strided(reinterpret_cast<const Unit*>(from), reinterpret_cast<Unit*>(result.raw()), entry.shape,
                 place.strides, 0);
  };
  struct [[gnu::packed]] Two {
    uint16_t value;
  };
  struct [[gnu::packed]] Four {
    uint32_t value;
  };
  struct [[gnu::packed]] Eight {
    uint64_t value;
  };
  if (element == 1) copy(static_cast<uint8_t*>(nullptr));
  if (element == 2) copy(static_cast<Two*>(nullptr));
  if (element == 4) copy(static_cast<Four*>(nullptr));
  if (element == 8) copy(static_cast<Eight*>(nullptr));
  return result;
}

Tensor inflate_storage(std::span<const std::byte> file, const PytorchStorage& storage,
                       std::string_view where) {
  require(storage.bytes <= kMaximumInflated,
          "[pytorch] {}: storage at offset {}: expected at most {} bytes deflated, found {}", where,
          storage.begin, kMaximumInflated, storage.bytes);
  ZipRecord record;
  record.name = fmt::format("at offset {}", storage.begin);
  record.begin = storage.begin;
  record.stored_bytes = storage.stored_bytes;
  record.bytes = storage.bytes;
  record.deflated = true;
  Tensor bytes = Tensor::empty(Shape{static_cast<int64_t>(storage.bytes)}, DType::u8);
  inflate_zip_record(file, record, {bytes.raw(), storage.bytes}, fmt::format("[pytorch] {}", where));
  return bytes;
}

std::vector<std::string> verify_pytorch(std::span<const std::byte> archive, std::string_view where,
                                        FunctionRef<void(uint64_t offset, uint64_t bytes)> seen) {
  const std::string here = fmt::format("[pytorch] {}", where);
  const std::vector<ZipRecord> records = read_zip_directory(archive, here);
  std::vector<std::string> defects(records.size());
  parallel_items(static_cast<int64_t>(records.size()), [&](int64_t item, int) {
    const ZipRecord& record = records[static_cast<size_t>(item)];
    std::string& defect = defects[static_cast<size_t>(item)];
    try {
      std::string inflated;
      const uint32_t found = crc32(record_bytes(archive, record, inflated, here));
      if (found != record.crc32)
        defect = fmt::format("{}: record '{}': expected the checksum {:08x}, found {:08x}", here,
                             shown(record.name), record.crc32, found);
    } catch (const Error& error) {
      defect = error.what();
    }
    seen(record.begin, record.stored_bytes);
  });
  std::erase_if(defects, [](const std::string& defect) { return defect.empty(); });
  return defects;
}

}  // namespace qkv
