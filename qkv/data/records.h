// Instruction, chat and preference data as the field writes it: JSON lines, or a JSON file with one list. The
// schema is detected from the first record and must be that of all.
//
//   text               {"text"}
//   alpaca             {"instruction", "input"?, "output"}
//   sharegpt           {"conversations": [{"from": human|gpt|system|tool|..., "value"}], "system"?, "tools"?}
//   messages           {"messages": [{"role", "content", "tool_calls"?}], "tools"?} OpenAI's
//   prompt-completion  {"prompt", "completion"}, texts or lists of messages
//   preference         {"prompt", "chosen", "rejected", "margin"?}, texts or messages; or without "prompt", which is
//   then what both
//                      have in common; or with "conversations" as the prompt
//   unpaired           {"prompt", "completion", "label": true|false}; or {"messages", "label"}, of the last turn
//   rewarded           {"prompt", "completion", "reward": number}
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"

namespace qkv {

enum class RecordSchema {
  text,
  alpaca,
  sharegpt,
  messages,
  prompt_completion,
  preference,
  unpaired,
  rewarded
};
std::string_view schema_name(RecordSchema schema);

// A text, or messages as OpenAI has them.
struct Said {
  std::string text;
  std::shared_ptr<const Json> messages;  // a list; null: a text

  bool is_chat() const { return messages != nullptr; }
  bool operator==(const Said& other) const;
};

struct Record {
  std::string where;                  // "file:12": opens error sentences
  Said prompt;                        // text "" or no messages where the record has none
  Said answer;                        // the text, the whole conversation, the completion or the chosen answer
  Said rejected;                      // preference
  bool good = false;                  // unpaired
  double reward = 0;                  // rewarded
  std::optional<double> margin;       // preference: by how much the chosen answer is better
  std::shared_ptr<const Json> tools;  // a list, or null
};

struct RecordFile {
  RecordSchema schema = RecordSchema::text;
  std::vector<Record> records;
};

// Throws Error `<file>:<line>: <field>: expected ..., found ...` at the first record that is not as it must
// be: wrong field names, another schema than the first's, empty or equal answers, an "id" that was there before,
// invalid UTF-8. Lines may
// end with CR LF; empty ones are passed over.
RecordFile read_records(const std::string& path);
// The same from memory; `path` names it.
RecordFile parse_records(std::string_view text, const std::string& path);

// Texts of prompts and answers as one user's and one assistant's message; what is a chat stays.
Record as_chat(Record record);

}  // namespace qkv
