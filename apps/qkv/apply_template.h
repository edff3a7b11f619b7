// qkv tokenizer apply-template: messages through a chat template.
#pragma once

namespace CLI {
class App;
}

namespace qkv {

void add_apply_template_command(CLI::App& app);

}  // namespace qkv
