// Chat templates: messages to the text that a model was trained to read. The template is a Jinja source that
// comes with the model (tokenizer_config.json, chat_template.jinja, a GGUF's tokenizer.chat_template); it
// sees the variables that Hugging Face transformers gives it, and gives the same bytes.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/text/jinja/template.h"

namespace qkv {

class Tokenizer;

struct ChatTemplateOptions {
  // End with what begins the assistant's turn.
  bool add_generation_prompt = true;
  // Null: the variable is not defined at all (transformers defines it as none, which templates treat alike).
  const Json* tools = nullptr;
  const Json* documents = nullptr;
  // An object whose keys become variables; they replace all others of the same name.
  const Json* variables = nullptr;
  // bos_token, eos_token, ...
  std::map<std::string, std::string> special_tokens;
  // For strftime_now; the clock if empty. Times are local, as in transformers.
  std::optional<std::chrono::system_clock::time_point> now;
  jinja::Limits limits;
};

// Bytes [begin, end) of a rendered chat that are the words of a message (or tool, or document) and not the
// template's own. They are known through prints, concatenation, slices, trims, replacements, splits and
// joins, changes of case, escapes and tojson (which also marks the brackets of a list or object that came
// from a message as a whole); text that a template only derives from a message, such as a number computed
// from it, is the template's.
struct ChatSpan {
  size_t begin = 0, end = 0;
  enum class Source { message, tools, documents };
  Source source = Source::message;
  int64_t message = -1;  // its index
  std::string
      key;  // of the message: "content", "tool_calls", "role", ...; empty if the message is printed whole
};

struct RenderedChat {
  std::string text;
  std::vector<ChatSpan> spans;  // by position
  // Inside of {% generation %} ... {% endgeneration %}: what the model itself would write. By position, not
  // touching.
  std::vector<ChatSpan> generated;
};

class ChatTemplate {
 public:
  // `name` (a path, usually) opens error sentences. Throws Error if `source` is no template.
  ChatTemplate(std::string_view source, std::string name) : template_(source, std::move(name)) {}

  // `messages`: a list of objects with "role" and "content", as transformers' apply_chat_template takes it.
  // Throws Error, TemplateRefusal if the template refuses the conversation.
  RenderedChat render(const Json& messages, const ChatTemplateOptions& options = {}) const;

  const std::string& name() const { return template_.name(); }

 private:
  jinja::Template template_;
};

// The template that came with the vocabulary: the one for tools ("tool_use") if there are any and the
// vocabulary has it, else the default; nullopt if it has none. `name` opens error sentences.
std::optional<ChatTemplate> make_chat_template(const Tokenizer& tokenizer, bool with_tools,
                                               const std::string& name);

// bos_token, eos_token, pad_token and unk_token as the vocabulary spells them.
std::map<std::string, std::string> template_special_tokens(const Tokenizer& tokenizer);

// The ids of a rendered chat. Special tokens are recognized in the template's own text only: what a message
// says stays words, whatever it spells. Nothing is put around: the template has BOS where the model wants it.
std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const RenderedChat& chat);

// The special tokens that the template puts right after what the assistant said ("<|im_end|>",
// "<end_of_turn>"); a model that follows it ends its answers with them.
std::vector<int32_t> end_of_turn_ids(const Tokenizer& tokenizer, const ChatTemplate& chat_template);

}  // namespace qkv
