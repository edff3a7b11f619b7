// Strings with marks.
#include "qkv/text/jinja/text_value.h"

#include <algorithm>

#include "qkv/text/jinja/failure.h"

namespace qkv::jinja {
namespace {

bool continues(char c) {
  return (static_cast<uint8_t>(c) & 0xC0) == 0x80;
}

}  // namespace

int64_t Text::size() const {
  int64_t size = size_.load(std::memory_order_relaxed);
  if (size < 0) {
    size = static_cast<int64_t>(bytes.size()) - std::count_if(bytes.begin(), bytes.end(), continues);
    size_.store(size, std::memory_order_relaxed);
  }
  return size;
}

size_t Text::offset(int64_t index) const {
  if (ascii()) return static_cast<size_t>(index);
  size_t position = 0;
  for (; index > 0; --index) {
    ++position;
    while (position < bytes.size() && continues(bytes[position])) ++position;
  }
  return position;
}

void Budget::out_of_steps() {
  fail_as(FailureKind::limit, "the template takes more steps than its limit allows");
}

void Budget::out_of_bytes() {
  fail_as(FailureKind::limit, "the template makes more text and lists than its memory limit allows");
}

void TextBuilder::add_mark(size_t begin, size_t end, uint32_t tag) {
  if (begin == end) return;
  if (!marks_.empty() && marks_.back().tag == tag && marks_.back().end == begin) {
    marks_.back().end = end;
  } else {
    budget_->allocate(sizeof(Mark));
    marks_.push_back({begin, end, tag});
  }
}

void TextBuilder::append(const Text& text, size_t begin, size_t end) {
  const size_t at = bytes_.size();
  append(std::string_view(text.bytes).substr(begin, end - begin));
  for (const Mark& mark : text.marks) {
    const size_t from = std::max(mark.begin, begin), to = std::min(mark.end, end);
    if (from < to) add_mark(at + from - begin, at + to - begin, mark.tag);
  }
}

void TextBuilder::append_instead(const Text& source, size_t begin, size_t end, std::string_view bytes) {
  const size_t at = bytes_.size();
  append(bytes);
  for (const Mark& mark : source.marks) {
    if (mark.begin < end && begin < mark.end) add_mark(at, bytes_.size(), mark.tag);
  }
}

void TextBuilder::append_tagged(std::string_view bytes, uint32_t tag) {
  const size_t at = bytes_.size();
  append(bytes);
  if (tag != 0) add_mark(at, bytes_.size(), tag);
}

void TextBuilder::repeat(std::string_view plain, uint64_t count) {
  if (!plain.empty() && count > UINT32_MAX) budget_->allocate(UINT64_MAX);
  budget_->allocate(plain.size() * count);
  bytes_.reserve(bytes_.size() + plain.size() * count);
  for (uint64_t i = 0; i < count && !plain.empty(); ++i) bytes_ += plain;
}

void TextBuilder::mark_from(size_t begin, uint32_t tag) {
  if (tag != 0) add_mark(begin, bytes_.size(), tag);
}

std::shared_ptr<Text> TextBuilder::finish(bool markup) {
  budget_->allocate(sizeof(Text));
  auto text = std::make_shared<Text>(std::move(bytes_));
  text->marks = std::move(marks_);
  text->markup = markup;
  bytes_.clear();
  marks_.clear();
  return text;
}

void append_escaped(TextBuilder& out, const Text& text) {
  size_t done = 0;
  for (size_t i = 0; i < text.bytes.size(); ++i) {
    std::string_view entity;
    switch (text.bytes[i]) {
      case '&':
        entity = "&amp;";
        break;
      case '<':
        entity = "&lt;";
        break;
      case '>':
        entity = "&gt;";
        break;
      case '"':
        entity = "&#34;";
        break;
      case '\'':
        entity = "&#39;";
        break;
      default:
        continue;
    }
    out.append(text, done, i);
    out.append_instead(text, i, i + 1, entity);
    done = i + 1;
  }
  out.append(text, done, text.bytes.size());
}

}  // namespace qkv::jinja
