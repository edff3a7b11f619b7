// Removing tags and entities from HTML.
#pragma once

#include "qkv/text/jinja/value.h"

namespace qkv::jinja {

// Without comments and tags, white space runs as one space, entities as characters (by number, and the common
// names).
Value strip_tags(Heap& heap, const Text& text);

}  // namespace qkv::jinja
