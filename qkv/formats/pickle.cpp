#include "qkv/formats/pickle.h"

#include <array>
#include <bit>
#include <charconv>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/content.h"
#include "qkv/formats/pickle_names.h"

namespace qkv {
namespace {

constexpr int kNewestProtocol = 5;
// Values that one pickle may make. A state dict has about thirty per tensor.
constexpr size_t kMaximumValues = 8'000'000;
// Bytes that values may copy from each other beyond those read from the file.
constexpr size_t kCopiesForFree = 4096;

template <typename T>
T little_endian(std::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(static_cast<uint8_t>(bytes[i])) << (8 * i)));
  return value;
}

double big_endian_double(std::string_view bytes) {
  uint64_t bits = 0;
  for (const char c : bytes) bits = bits << 8 | static_cast<uint8_t>(c);
  return std::bit_cast<double>(bits);
}

std::optional<uint32_t> hexadecimal(std::string_view digits) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string describe(PickleRef value) {
  constexpr std::array<std::string_view, 13> kKinds = {
      "None",       "a truth value", "an integer", "a large integer", "a number",  "a text",  "bytes",
      "a sequence", "a dictionary",  "a name",     "a type of numpy", "a storage", "a tensor"};
  if (value == nullptr) return "nothing";
  if (const auto* number = as<int64_t>(value)) return fmt::format("the integer {}", *number);
  if (const auto* named = as<PickleName>(value)) return std::string(named->name);
  return std::string(kKinds[value->data.index()]);
}

// The machine that the opcodes drive. Opcodes are spelled as pickle files have them; pickletools.py documents
// each.
class Unpickler {
 public:
  Unpickler(std::span<const std::byte> bytes, std::string_view where, Pickle& out)
      : text_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), where_(where), out_(out) {}

  void run() {
    while (true) {
      start_ = position_;
      const char opcode = take(1)[0];
      try {
        if (opcode == '.') break;
        step(opcode);
      } catch (const Error& error) {
        if (described_) throw;
        refuse("{}", error.what());
      }
    }
    out_.root_ = pop();
    out_.size_ = position_;
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
    described_ = true;
    fail("{}: byte {}: {}", where_, start_, fmt::format(format, std::forward<Args>(args)...));
  }

  // Reading.

  std::string_view take(uint64_t count) {
    const size_t left = text_.size() - position_;
    if (count > left) refuse("expected {} more bytes of the pickle, found {}", count, left);
    const std::string_view piece = text_.substr(position_, count);
    position_ += count;
    return piece;
  }
  template <typename T>
  T number() {
    return little_endian<T>(take(sizeof(T)));
  }
  std::string_view line() {
    const size_t end = text_.find('\n', position_);
    if (end == std::string_view::npos) refuse("expected a line, found the end of the pickle");
    const std::string_view piece = text_.substr(position_, end - position_);
    position_ = end + 1;
    return piece;
  }
  std::string utf8(std::string_view piece) {
    if (first_invalid_utf8(piece)) refuse("expected a text in UTF-8, found other bytes");
    return std::string(piece);
  }

  // Making values.

  PickleRef make(PickleValue value, size_t copied_bytes = 0) {
    copied_ += copied_bytes;
    if (out_.values_.size() >= kMaximumValues || copied_ > position_ + kCopiesForFree)
      refuse("expected at most {} values and as many copied bytes as were read, found more", kMaximumValues);
    return &out_.values_.emplace_back(std::move(value));
  }
  template <typename T>
  void push_new(T data) {
    stack_.push_back(make({std::move(data)}));
  }
  PickleValue& writable(PickleRef value) { return const_cast<PickleValue&>(*value); }  // all are ours

  // Stack and memo.

  PickleRef pop() {
    if (stack_.size() <= floor()) refuse("expected a value on the stack, found none");
    const PickleRef value = stack_.back();
    stack_.pop_back();
    return value;
  }
  PickleRef top() {
    if (stack_.size() <= floor()) refuse("expected a value on the stack, found none");
    return stack_.back();
  }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::vector<PickleRef> pop_to_mark() {
    if (marks_.empty()) refuse("expected a mark on the stack, found none");
    std::vector<PickleRef> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  std::vector<PickleRef> pop_many(size_t count) {
    std::vector<PickleRef> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }
  void memorize(uint64_t index) {
    // Picklers number from zero, and every number took bytes: a larger one is not theirs.
    if (index >= position_) refuse("expected a memo index below {}, found {}", position_, index);
    if (index >= memo_.size()) memo_.resize(index + 1);
    memo_[index] = top();
  }
  void recall(uint64_t index) {
    if (index >= memo_.size() || memo_[index] == nullptr)
      refuse("expected a memo index that was set, found {}", index);
    stack_.push_back(memo_[index]);
  }

  // Containers.

  void append(std::vector<PickleRef> items) {
    auto* list = std::get_if<PickleSequence>(&writable(top()).data);
    if (list == nullptr || list->is_tuple) refuse("expected a list to append to, found {}", describe(top()));
    list->items.insert(list->items.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<PickleRef>& items, PickleDict& dict) {
    if (items.size() % 2 != 0) refuse("expected keys and values, found {} items", items.size());
    for (size_t i = 0; i < items.size(); i += 2) dict.items.emplace_back(items[i], items[i + 1]);
  }
  void set_items(const std::vector<PickleRef>& items) {
    auto* dict = std::get_if<PickleDict>(&writable(top()).data);
    if (dict == nullptr) refuse("expected a dictionary, found {}", describe(top()));
    set_items(items, *dict);
  }
  void push_dict(const std::vector<PickleRef>& items) {
    PickleDict dict;
    set_items(items, dict);
    push_new(std::move(dict));
  }
  void push_sequence(std::vector<PickleRef> items, bool is_tuple) {
    push_new(PickleSequence{std::move(items), is_tuple});
  }

  // Numbers and texts.

  void push_long(std::string_view bytes) {
    if (bytes.size() > 8) return push_new(PickleBigInteger{std::string(bytes)});
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
    const bool negative = !bytes.empty() && static_cast<int8_t>(bytes.back()) < 0;
    if (negative && bytes.size() < 8) value |= ~uint64_t{0} << (8 * bytes.size());
    push_new(static_cast<int64_t>(value));
  }
  void push_decimal(std::string_view digits) {
    if (digits == "00" || digits == "01") return push_new(digits == "01");  // how protocol 0 writes booleans
    if (digits.ends_with('L')) digits.remove_suffix(1);
    push_new(decimal(digits));
  }
  int64_t decimal(std::string_view digits) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size())
      refuse("expected an integer of 64 bits, found '{}'", shown(digits));
    return value;
  }
  void push_decimal_float(std::string_view digits) {
    double value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size())
      refuse("expected a number, found '{}'", shown(digits));
    push_new(value);
  }
  // The str of Python 2: a text if it is one.
  void push_old_text(std::string bytes) {
    if (first_invalid_utf8(bytes)) return push_new(PickleBytes{std::move(bytes)});
    push_new(std::move(bytes));
  }
  // 'it\'s' with Python's escapes.
  void push_quoted(std::string_view text) {
    if (text.size() < 2 || (text[0] != '\'' && text[0] != '"') || text.back() != text[0])
      refuse("expected a quoted text, found '{}'", shown(text));
    text = text.substr(1, text.size() - 2);
    std::string bytes;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        bytes += text[i];
        continue;
      }
      const char escape = text[++i];
      constexpr std::string_view kEscapes = "\\'\"ntr";
      constexpr std::string_view kMeanings = "\\'\"\n\t\r";
      const size_t known = kEscapes.find(escape);
      const auto code = escape == 'x' ? hexadecimal(text.substr(i + 1, 2)) : std::nullopt;
      if (known != std::string_view::npos) {
        bytes += kMeanings[known];
      } else if (code) {
        bytes += static_cast<char>(*code);
        i += 2;
      } else {
        refuse("expected an escape of Python, found '{}'", shown(text.substr(i - 1, 4)));
      }
    }
    push_old_text(std::move(bytes));
  }
  // Latin-1 with \uXXXX and \UXXXXXXXX.
  void push_raw_unicode(std::string_view text) {
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
      const size_t digits = text.substr(i).starts_with("\\u") ? 4 : text.substr(i).starts_with("\\U") ? 8 : 0;
      char32_t point = static_cast<uint8_t>(text[i]);
      if (digits > 0) {
        const auto code = hexadecimal(text.substr(i + 2, digits));
        if (!code || i + 2 + digits > text.size() || *code > 0x10FFFF || (*code >= 0xD800 && *code < 0xE000))
          refuse("expected a character's code, found '{}'", shown(text.substr(i, 2 + digits)));
        point = *code;
        i += 1 + digits;
      }
      append_utf8(result, point);
    }
    push_new(std::move(result));
  }

  // Names, and what calling them stands for.

  void push_name(std::string_view module, std::string_view name) {
    const PickleName* known = find_pickle_name(module, name);
    if (known == nullptr) {
      refuse("the class or function '{}.{}' is refused: only tensors, numbers, texts and containers are read",
             shown(module), shown(name));
    }
    push_new(*known);
  }
  void push_named_by_stack() {
    const auto names = pop_many(2);
    const auto* module = as<std::string>(names[0]);
    const auto* name = as<std::string>(names[1]);
    if (module == nullptr || name == nullptr) refuse("expected a module and a name, found other values");
    push_name(*module, *name);
  }
  void push_call(PickleRef function, PickleRef arguments) {
    const auto* named = as<PickleName>(function);
    const auto* list = as<PickleSequence>(arguments);
    if (named == nullptr) refuse("expected a function to call, found {}", describe(function));
    if (list == nullptr) refuse("expected a tuple of arguments, found {}", describe(arguments));
    const auto maker = [&](PickleValue value, size_t copied) { return make(std::move(value), copied); };
    stack_.push_back(call_pickle_name(*named, *list, maker));
  }
  // `state` updates attributes of the value below it. None that matters here has any, but numpy's types
  // say their byte order.
  void build() {
    const PickleRef state = pop();
    const PickleRef value = top();
    if (as<PickleNumpyType>(value) != nullptr) {
      const auto* items = as<PickleSequence>(state);
      const auto* order =
          items == nullptr || items->items.size() < 2 ? nullptr : as<std::string>(items->items[1]);
      if (order == nullptr || *order == ">") refuse("numpy.dtype: expected little-endian numbers");
    } else if (as<PickleDict>(value) == nullptr && as<PickleTensor>(value) == nullptr) {
      refuse("expected a dictionary or a tensor to set attributes of, found {}", describe(value));
    }
  }

  void step(char opcode);

  std::string_view text_;
  std::string where_;
  Pickle& out_;
  size_t position_ = 0;
  size_t start_ = 0;        // of the current opcode
  size_t copied_ = 0;       // bytes in values that are not copied from the file once
  bool described_ = false;  // the error in flight has its place
  std::vector<PickleRef> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::vector<PickleRef> memo_;
};

void Unpickler::step(char opcode) {
  switch (opcode) {
    case '\x80': {  // PROTO
      const int protocol = number<uint8_t>();
      if (protocol > kNewestProtocol)
        refuse("expected a protocol of at most {}, found {}", kNewestProtocol, protocol);
      return;
    }
    case '\x95':  // FRAME: how much follows; nothing that a whole file needs
      take(8);
      return;
    case '(':
      marks_.push_back(stack_.size());
      return;  // MARK
    case '0':  // POP
      if (!marks_.empty() && stack_.size() == marks_.back()) return marks_.pop_back();
      pop();
      return;
    case '1':
      pop_to_mark();
      return;  // POP_MARK
    case '2':
      stack_.push_back(top());
      return;  // DUP

    case 'N':
      return push_new(PickleNone{});  // NONE
    case '\x88':
      return push_new(true);  // NEWTRUE
    case '\x89':
      return push_new(false);  // NEWFALSE
    case 'I':
      return push_decimal(line());  // INT
    case 'L':
      return push_decimal(line());  // LONG
    case 'J':
      return push_new(int64_t{number<int32_t>()});  // BININT
    case 'K':
      return push_new(int64_t{number<uint8_t>()});  // BININT1
    case 'M':
      return push_new(int64_t{number<uint16_t>()});  // BININT2
    case '\x8a':
      return push_long(take(number<uint8_t>()));  // LONG1
    case '\x8b':
      return push_long(take(number<uint32_t>()));  // LONG4
    case 'F':
      return push_decimal_float(line());  // FLOAT
    case 'G':
      return push_new(big_endian_double(take(8)));  // BINFLOAT

    case 'S':
      return push_quoted(line());  // STRING
    case 'T':
      return push_old_text(std::string(take(number<uint32_t>())));  // BINSTRING
    case 'U':
      return push_old_text(std::string(take(number<uint8_t>())));  // SHORT_BINSTRING
    case 'V':
      return push_raw_unicode(line());  // UNICODE
    case 'X':
      return push_new(utf8(take(number<uint32_t>())));  // BINUNICODE
    case '\x8c':
      return push_new(utf8(take(number<uint8_t>())));  // SHORT_BINUNICODE
    case '\x8d':
      return push_new(utf8(take(number<uint64_t>())));  // BINUNICODE8
    case 'B':
      return push_new(PickleBytes{std::string(take(number<uint32_t>()))});  // BINBYTES
    case 'C':
      return push_new(PickleBytes{std::string(take(number<uint8_t>()))});  // SHORT_BINBYTES
    case '\x8e':
      return push_new(PickleBytes{std::string(take(number<uint64_t>()))});  // BINBYTES8
    case '\x96':
      return push_new(PickleBytes{std::string(take(number<uint64_t>()))});  // BYTEARRAY8

    case ')':
      return push_sequence({}, true);  // EMPTY_TUPLE
    case 't':
      return push_sequence(pop_to_mark(), true);  // TUPLE
    case '\x85':
      return push_sequence(pop_many(1), true);  // TUPLE1
    case '\x86':
      return push_sequence(pop_many(2), true);  // TUPLE2
    case '\x87':
      return push_sequence(pop_many(3), true);  // TUPLE3
    case ']':
    case '\x8f':
      return push_sequence({}, false);  // EMPTY_LIST, EMPTY_SET
    case 'l':
    case '\x91':
      return push_sequence(pop_to_mark(), false);  // LIST, FROZENSET
    case 'a':
      return append(pop_many(1));  // APPEND
    case 'e':
    case '\x90':
      return append(pop_to_mark());  // APPENDS, ADDITEMS
    case '}':
      return push_dict({});  // EMPTY_DICT
    case 'd':
      return push_dict(pop_to_mark());  // DICT
    case 's':
      return set_items(pop_many(2));  // SETITEM
    case 'u':
      return set_items(pop_to_mark());  // SETITEMS

    case 'p':
      return memorize(static_cast<uint64_t>(decimal(line())));  // PUT
    case 'q':
      return memorize(number<uint8_t>());  // BINPUT
    case 'r':
      return memorize(number<uint32_t>());  // LONG_BINPUT
    case '\x94':
      return memorize(memo_.size());  // MEMOIZE
    case 'g':
      return recall(static_cast<uint64_t>(decimal(line())));  // GET
    case 'h':
      return recall(number<uint8_t>());  // BINGET
    case 'j':
      return recall(number<uint32_t>());  // LONG_BINGET

    case 'c': {  // GLOBAL
      const std::string_view module = line();
      return push_name(module, line());
    }
    case '\x93':
      return push_named_by_stack();  // STACK_GLOBAL
    case 'R':
    case '\x81': {  // REDUCE, NEWOBJ
      const auto call = pop_many(2);
      return push_call(call[0], call[1]);
    }
    case '\x92': {  // NEWOBJ_EX
      const auto call = pop_many(3);
      const auto* keywords = as<PickleDict>(call[2]);
      if (keywords == nullptr || !keywords->items.empty())
        refuse("expected no keyword arguments, found some");
      return push_call(call[0], call[1]);
    }
    case 'b':
      return build();  // BUILD
    case 'Q':
      return push_new(pickle_storage(pop()));  // BINPERSID
    case 'i': {                                // INST
      const std::string_view module = line();
      push_name(module, line());
      refuse("expected values, found the instance of a class of Python 2, '{}'", describe(pop()));
    }
    default:
      refuse("expected an opcode that state dicts are made of, found 0x{:02x}", static_cast<uint8_t>(opcode));
  }
}

Pickle::Pickle(std::span<const std::byte> bytes, std::string_view where) {
  Unpickler(bytes, where, *this).run();
}

std::map<std::string, const PickleStorage*> Pickle::storages() const {
  std::map<std::string, const PickleStorage*> result;
  for (const auto& value : values_) {
    if (const auto* storage = as<PickleStorage>(&value)) result.emplace(storage->key, storage);
  }
  return result;
}

}  // namespace qkv
