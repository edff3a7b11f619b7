// Strings of the template language: UTF-8 bytes, and marks that say which bytes came from where. A mark
// survives what keeps the characters (concatenation, slices, stripping, splitting, replacing, case, JSON
// escapes), so that the output can tell a message's words from the template's own. A string without marks
// pays for an empty vector.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qkv::jinja {

// Anything that a Value refers to.
struct Object {
  virtual ~Object() = default;
  uint32_t nesting = 0;  // how deep containers nest below; bounded, because destructors and printing recurse
};

// Bytes [begin, end) came from source `tag`. Marks may overlap; each stands for itself.
struct Mark {
  size_t begin = 0, end = 0;
  uint32_t tag = 0;
};

struct Text final : Object {
  Text() = default;
  explicit Text(std::string text) : bytes(std::move(text)) {}

  // In code points.
  int64_t size() const;
  bool ascii() const { return size() == static_cast<int64_t>(bytes.size()); }
  // The byte offset of code point `index`, 0 <= index <= size().
  size_t offset(int64_t index) const;

  std::string bytes;
  std::vector<Mark> marks;
  bool markup = false;  // `safe` or escaped: further text is escaped before it joins

 private:
  mutable std::atomic<int64_t> size_{-1};
};

using TextPtr = std::shared_ptr<const Text>;

// What a render may use in all; each charge throws Failure when it is used up.
class Budget {
 public:
  Budget(uint64_t steps, uint64_t bytes) : steps_(steps), bytes_(bytes) {}
  void step(uint64_t count = 1) {
    if (count > steps_) out_of_steps();
    steps_ -= count;
  }
  void allocate(uint64_t bytes) {
    if (bytes > bytes_) out_of_bytes();
    bytes_ -= bytes;
  }

 private:
  [[noreturn]] static void out_of_steps();
  [[noreturn]] static void out_of_bytes();
  uint64_t steps_, bytes_;
};

// Builds a string piece by piece, with its marks.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(&budget) {}

  void append(std::string_view plain) {
    budget_->allocate(plain.size());
    bytes_ += plain;
  }
  void append(char c) { append(std::string_view(&c, 1)); }
  void append(const Text& text) { append(text, 0, text.bytes.size()); }
  // Bytes [begin, end) of `text`.
  void append(const Text& text, size_t begin, size_t end);
  // `bytes` stand for bytes [begin, end) of `source`, in another spelling.
  void append_instead(const Text& source, size_t begin, size_t end, std::string_view bytes);
  void append_tagged(std::string_view bytes, uint32_t tag);
  void repeat(std::string_view plain, uint64_t count);
  // Everything from byte `begin` on came from `tag`.
  void mark_from(size_t begin, uint32_t tag);

  Budget& budget() { return *budget_; }
  size_t size() const { return bytes_.size(); }
  std::string_view bytes() const { return bytes_; }
  bool has_marks() const { return !marks_.empty(); }
  std::shared_ptr<Text> finish(bool markup = false);

 private:
  void add_mark(size_t begin, size_t end, uint32_t tag);
  Budget* budget_;
  std::string bytes_;
  std::vector<Mark> marks_;
};

// HTML's five characters.
void append_escaped(TextBuilder& out, const Text& text);

}  // namespace qkv::jinja
