// The kinds of plans that have a file of their own.
#pragma once

namespace CLI {
class App;
}

namespace qkv {

void add_plan_train(CLI::App& plan);  // plan_train.cpp

}  // namespace qkv
