// json.dumps, with the marks of the strings that go in. A list or dictionary that came from a message as it
// is marks all of its JSON, brackets and numbers included.
#include <algorithm>
#include <cmath>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(TextBuilder& out, const JsonStyle& style) : out_(out), style_(style) {}

  // `tag`: what the surrounding value came from; its JSON is marked as a whole already.
  void write(const Value& value, uint32_t tag, size_t depth) {
    const size_t begin = out_.size();
    switch (value.kind()) {
      case Kind::none:
        out_.append("null");
        break;
      case Kind::boolean:
        out_.append(value.boolean() ? "true" : "false");
        break;
      case Kind::integer:
        out_.append(std::to_string(value.integer()));
        break;
      case Kind::real:
        out_.append(number(value.real()));
        break;
      case Kind::string:
        return write_string(value.text(), tag != 0);
      case Kind::list:
      case Kind::tuple:
        write_list(value, std::max(tag, value.tag()), depth);
        break;
      case Kind::dict:
        write_dict(value, std::max(tag, value.tag()), depth);
        break;
      default:
        type_error("Object of type {} is not JSON serializable", type_name(value));
    }
    if (tag == 0) out_.mark_from(begin, value.tag());
  }

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return format_real(value);
  }

  // Within marked JSON a string's own marks would only repeat that.
  void append(const Text& text, size_t begin, size_t end, std::string_view spelling, bool marked) {
    if (marked) {
      out_.append(spelling);
    } else {
      out_.append_instead(text, begin, end, spelling);
    }
  }

  void write_string(const Text& text, bool marked) {
    const std::string_view bytes = text.bytes;
    out_.append('"');
    size_t done = 0;
    const auto flush = [&](size_t end) {
      if (marked) {
        out_.append(bytes.substr(done, end - done));
      } else {
        out_.append(text, done, end);
      }
    };
    for (size_t i = 0; i < bytes.size();) {
      const size_t begin = i;
      const auto byte = static_cast<uint8_t>(bytes[i]);
      std::string escape;
      if (byte < 0x80) {
        ++i;
        constexpr std::string_view kPlain = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
        if (const size_t at = kPlain.find(static_cast<char>(byte)); at != std::string_view::npos) {
          escape = {'\\', kLetters[at]};
        } else if (byte < 0x20) {
          escape = fmt::format("\\u{:04x}", byte);
        } else {
          continue;
        }
      } else {
        const char32_t c = next_code_point(bytes, i).value_or(0xFFFD);
        if (!style_.ascii) continue;
        const auto code = static_cast<uint32_t>(c);
        escape = code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                : fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10),
                                              0xDC00 + ((code - 0x10000) & 0x3FF));
      }
      flush(begin);
      append(text, begin, i, escape, marked);
      done = i;
    }
    flush(bytes.size());
    out_.append('"');
  }

  void new_line(size_t depth) {
    if (!style_.indent) return;
    out_.append("\n");
    out_.repeat(*style_.indent, depth);
  }

  void write_list(const Value& value, uint32_t tag, size_t depth) {
    const auto& items = value.items();
    out_.append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(depth + 1);
      write(items[i], tag, depth + 1);
    }
    if (!items.empty()) new_line(depth);
    out_.append("]");
  }

  void write_key(const Value& key, uint32_t tag) {
    switch (key.kind()) {
      case Kind::string:
        return write_string(key.text(), tag != 0);
      case Kind::integer:
        return out_.append(fmt::format("\"{}\"", key.integer()));
      case Kind::real:
        return out_.append(fmt::format("\"{}\"", number(key.real())));
      case Kind::boolean:
        return out_.append(key.boolean() ? "\"true\"" : "\"false\"");
      case Kind::none:
        return out_.append("\"null\"");
      default:
        type_error("keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  void write_dict(const Value& value, uint32_t tag, size_t depth) {
    std::vector<const Dict::Entry*> entries;
    for (const auto& entry : value.dict().entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return less(a->first, b->first); });
    }
    out_.append("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(depth + 1);
      write_key(entries[i]->first, tag);
      out_.append(style_.key_separator);
      write(entries[i]->second, tag, depth + 1);
    }
    if (!entries.empty()) new_line(depth);
    out_.append("}");
  }

  TextBuilder& out_;
  const JsonStyle& style_;
};

}  // namespace

void append_json(TextBuilder& out, const Value& value, const JsonStyle& style) {
  JsonWriter(out, style).write(value, 0, 0);
}

}  // namespace qkv::jinja
