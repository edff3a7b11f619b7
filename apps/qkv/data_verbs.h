// The commands of `qkv data` that have a file of their own.
#pragma once

namespace CLI {
class App;
}

namespace qkv {

void add_data_lint(CLI::App& data);  // data_lint.cpp
void add_data_self_critique(CLI::App& data);  // data_self_critique.cpp

}  // namespace qkv
