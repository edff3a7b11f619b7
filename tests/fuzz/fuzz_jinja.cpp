// Any bytes as a Jinja template over a conversation: rendered, or refused with Error, within small limits;
// and what is marked lies inside of the text.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "qkv/core/error.h"
#include "qkv/text/chat_template.h"

namespace {

const qkv::Json& messages() {
  static const auto made = qkv::Json::parse(R"([{"role": "system", "content": " Be <b>brief</b>. "},
    {"role": "user", "content": "Größe 👍?\n\n1,2"}, {"role": "assistant", "content": null,
     "tool_calls": [{"id": "abc123XYZ", "type": "function", "function": {"name": "f", "arguments": {"x": 1.5, "y": [true, null, "s"]}}}]},
    {"role": "tool", "content": "42"}, {"role": "assistant", "content": "<think>so</think>42"}])");
  return made;
}

const qkv::Json& tools() {
  static const auto made = qkv::Json::parse(R"([{"type": "function", "function": {"name": "f", "parameters":
    {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}}}])");
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  qkv::ChatTemplateOptions options;
  options.tools = &tools();
  options.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  options.now = std::chrono::system_clock::time_point(std::chrono::seconds(1722001234));
  options.limits.max_steps = 20'000;
  options.limits.max_bytes = 4 << 20;
  options.limits.max_output_bytes = 1 << 20;
  try {
    const auto chat = qkv::ChatTemplate(source, "input").render(messages(), options);
    for (const auto* spans : {&chat.spans, &chat.generated}) {
      for (const auto& span : *spans) {
        if (span.begin >= span.end || span.end > chat.text.size()) std::abort();
      }
    }
  } catch (const qkv::Error&) {
  }
  return 0;
}
