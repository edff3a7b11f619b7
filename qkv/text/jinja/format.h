// Python's two ways to format: "%s" % value and "{}".format(value).
#pragma once

#include <string_view>

#include "qkv/text/jinja/value.h"

namespace qkv::jinja {

// format % values. Throws as Python does for wrong types, too few or too many values.
Value format_percent(Heap& heap, const Text& format, const Value& values);

// format.format(...): fields with attributes, items, !r, !s and format specifications.
Value format_braces(Interpreter& interpreter, const Text& format, const CallArguments& arguments);

// format(value, specification), the part of a field after the colon.
void append_formatted(TextBuilder& out, const Value& value, std::string_view specification);

}  // namespace qkv::jinja
