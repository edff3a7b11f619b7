#include "adapter_flags.h"

#include <CLI/CLI.hpp>

namespace qkv {

void AdapterFlags::add_to(CLI::App& command) {
  command
      .add_option("--adapter", adapters,
                  "An adapter to put over the weights: a PEFT directory or a GGUF adapter; =SCALE weakens or "
                  "strengthens it; may be repeated")
      ->type_name("PATH[=SCALE]")
      ->allow_extra_args(false);
}

std::vector<AdapterRequest> AdapterFlags::requests() const {
  std::vector<AdapterRequest> requests;
  for (const std::string& text : adapters) requests.push_back(parse_adapter_request(text));
  return requests;
}

}  // namespace qkv
