// JSON as Python's json module reads and writes it: besides the standard, the bare words NaN, Infinity and
// -Infinity are numbers. (A Mamba-2 config.json has "time_step_limit": [0.0, Infinity].)
#pragma once

#include <string>
#include <string_view>

#include "qkv/core/json.h"

namespace qkv {

// As parse_json() of qkv/core/json.h, with those three as floating-point values.
Json parse_python_json(std::string_view text, std::string_view where);

// As dump_json(), with those three as bare words; the standard would make them null.
std::string dump_python_json(const Json& json, int indent = -1);

}  // namespace qkv
