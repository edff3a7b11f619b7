// Tokens to a syntax tree.
#pragma once

#include <string>
#include <string_view>

#include "qkv/text/jinja/ast.h"

namespace qkv::jinja {

// Throws Failure with its line: what is not Jinja, what this engine refuses (include, import, extends,
// block), unknown filters and tests, and nesting beyond reason.
Syntax parse_template(std::string_view source);

// Decides which variable each name of a parsed template means, as Jinja's compiler does. Called by
// parse_template.
void resolve_names(Syntax& syntax);

}  // namespace qkv::jinja
