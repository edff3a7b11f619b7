// Rendering a conversation on the command line: text, ids, or both with where each byte came from.
#include "apply_template.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "console.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/text/chat_template.h"
#include "qkv/text/tokenizer.h"

namespace qkv {
namespace {

struct Command {
  std::string model, messages, tools, documents, variables, template_file;
  bool no_generation_prompt = false, ids = false, json = false;
};

// A list of messages, or an object that has one under "messages" (and its tools under "tools").
struct Input {
  Json messages, tools, documents, variables;
};

Input read_input_files(const Command& command) {
  Input input;
  input.messages = parse_json(read_input(command.messages), command.messages);
  if (input.messages.is_object()) {
    require(input.messages.contains("messages"),
            "{}: expected a list of messages or an object with key 'messages'", command.messages);
    if (input.messages.contains("tools")) input.tools = input.messages["tools"];
    input.messages = Json(input.messages["messages"]);
  }
  if (!command.tools.empty()) input.tools = load_json(command.tools);
  if (!command.documents.empty()) input.documents = load_json(command.documents);
  if (!command.variables.empty()) input.variables = load_json(command.variables);
  return input;
}

Json spans_json(const std::vector<ChatSpan>& spans, bool with_source) {
  Json list = Json::array();
  for (const ChatSpan& span : spans) {
    Json entry = {{"begin", span.begin}, {"end", span.end}};
    if (with_source) {
      if (span.source == ChatSpan::Source::message) entry["message"] = span.message;
      entry["key"] = span.source == ChatSpan::Source::message ? span.key
                     : span.source == ChatSpan::Source::tools ? "tools"
                                                              : "documents";
    }
    list.push_back(std::move(entry));
  }
  return list;
}

void apply_template(const Command& command) {
  const auto tokenizer = load_tokenizer(command.model);
  const Input input = read_input_files(command);
  const auto own = [&] {
    auto made = make_chat_template(*tokenizer, !input.tools.is_null(), command.model);
    require(made.has_value(),
            "{}: has no chat template: expected one in its tokenizer_config.json, or --template FILE",
            command.model);
    return std::move(*made);
  };
  const ChatTemplate chat_template =
      command.template_file.empty() ? own()
                                    : ChatTemplate(read_file(command.template_file), command.template_file);
  ChatTemplateOptions options;
  options.add_generation_prompt = !command.no_generation_prompt;
  options.special_tokens = template_special_tokens(*tokenizer);
  if (!input.tools.is_null()) options.tools = &input.tools;
  if (!input.documents.is_null()) options.documents = &input.documents;
  if (!input.variables.is_null()) options.variables = &input.variables;
  const RenderedChat chat = chat_template.render(input.messages, options);
  if (command.json) {
    Json json;
    json["text"] = chat.text;
    json["ids"] = encode_chat(*tokenizer, chat);
    json["spans"] = spans_json(chat.spans, true);
    json["generated"] = spans_json(chat.generated, false);
    print_out(dump_json(json) + "\n");
  } else if (command.ids) {
    std::string line;
    for (const int32_t id : encode_chat(*tokenizer, chat))
      line += (line.empty() ? "" : " ") + std::to_string(id);
    print_out(line + "\n");
  } else {
    print_out(chat.text);
  }
}

}  // namespace

void add_apply_template_command(CLI::App& app) {
  const auto command = std::make_shared<Command>();
  CLI::App* verb = app.add_subcommand("apply-template", "Messages to the text that a model reads");
  verb->add_option("MODEL", command->model, "A model or tokenizer directory, or a tokenizer file")
      ->required();
  verb->add_option(
          "--messages", command->messages,
          "JSON: a list of messages, or an object with \"messages\" and \"tools\"; - is standard input")
      ->required()
      ->type_name("FILE");
  verb->add_option("--tools", command->tools, "JSON: a list of functions that the model may call")
      ->type_name("FILE");
  verb->add_option("--documents", command->documents, "JSON: a list of documents")->type_name("FILE");
  verb->add_option("--variables", command->variables, "JSON: an object of further variables for the template")
      ->type_name("FILE");
  verb->add_option("--template", command->template_file, "A Jinja file instead of the model's own template")
      ->type_name("FILE");
  verb->add_flag("--no-generation-prompt", command->no_generation_prompt,
                 "Do not begin the assistant's next turn");
  verb->add_flag("--ids", command->ids,
                 "Print token ids; what a message says never becomes a special token, whatever it spells");
  verb->add_flag(
      "--json", command->json,
      "Print text, ids, and which bytes came from which message (spans) or were marked as generated");
  verb->footer("Example:\n  qkv tokenizer apply-template my-model --messages chat.json --tools tools.json");
  verb->callback([command] { apply_template(*command); });
}

}  // namespace qkv
