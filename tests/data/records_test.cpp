// Records of every schema, and one sentence for everything that can be wrong with one.
#include "qkv/data/records.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/test_paths.h"

namespace qkv {
namespace {

Record one(const std::string& line) {
  return parse_records(line, "f.jsonl").records.at(0);
}

void expect_error(const std::string& text, const std::string& sentence) {
  const std::string found = test::error_of([&] { parse_records(text, "f.jsonl"); });
  EXPECT_NE(found.find(sentence), std::string::npos) << found << "\nwanted: " << sentence;
}

std::string chat(const Said& said) {
  return said.is_chat() ? dump_json(*said.messages) : "text " + said.text;
}

TEST(Records, EverySchemaIsDetected) {
  const std::pair<const char*, RecordSchema> lines[] = {
      {R"({"text": "a"})", RecordSchema::text},
      {R"({"instruction": "a", "input": "", "output": "b"})", RecordSchema::alpaca},
      {R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})",
       RecordSchema::sharegpt},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})",
       RecordSchema::messages},
      {R"({"prompt": "a", "completion": "b"})", RecordSchema::prompt_completion},
      {R"({"prompt": "a", "chosen": "b", "rejected": "c"})", RecordSchema::preference},
      {R"({"prompt": "a", "completion": "b", "label": true})", RecordSchema::unpaired},
      {R"({"prompt": "a", "completion": "b", "reward": 0.5})", RecordSchema::rewarded},
  };
  for (const auto& [line, schema] : lines) EXPECT_EQ(parse_records(line, "f").schema, schema) << line;
}

TEST(Records, ChatsBecomeMessages) {
  EXPECT_EQ(chat(one(R"({"instruction": "Add.", "input": "1 2", "output": "3"})").answer),
            R"([{"role":"user","content":"Add.\n\n1 2"},{"role":"assistant","content":"3"}])");
  EXPECT_EQ(
      chat(
          one(R"({"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "observation", "value": "1"}, {"from": "gpt", "value": "b"}]})")
              .answer),
      R"([{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"tool","content":"1"},{"role":"assistant","content":"b"}])");
  const Record tools = one(
      R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"}], "tools": "[{\"name\": \"f\"}]"})");
  EXPECT_EQ(
      chat(tools.answer),
      R"([{"role":"user","content":"a"},{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]}])");
  ASSERT_NE(tools.tools, nullptr);
  EXPECT_EQ(dump_json(*tools.tools), R"([{"name":"f"}])");
}

TEST(Records, PreferencesWithTheirPromptOrWithout) {
  const Record plain = one(R"({"prompt": "a", "chosen": "b", "rejected": "c"})");
  EXPECT_EQ(plain.prompt.text, "a");
  const Record turned = as_chat(plain);
  EXPECT_EQ(chat(turned.prompt), R"([{"role":"user","content":"a"}])");
  EXPECT_EQ(chat(turned.rejected), R"([{"role":"assistant","content":"c"}])");
  const Record implicit = one(
      R"({"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]})");
  EXPECT_EQ(chat(implicit.prompt), R"([{"role":"user","content":"a"}])");
  EXPECT_EQ(chat(implicit.answer), R"([{"role":"assistant","content":"b"}])");
  const Record anthropic =
      one(R"({"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"})");
  EXPECT_EQ(chat(anthropic.prompt), R"([{"role":"user","content":"hi"}])");
  EXPECT_EQ(chat(anthropic.rejected), R"([{"role":"assistant","content":"no"}])");
  const Record factory = one(
      R"({"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}})");
  EXPECT_EQ(chat(factory.prompt), R"([{"role":"user","content":"a"}])");
  EXPECT_EQ(chat(factory.answer), R"([{"role":"assistant","content":"b"}])");
}

TEST(Records, LabelsOfTheLastTurnAndMargins) {
  const Record last = one(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}], "label": false})");
  EXPECT_EQ(last.prompt.messages->size(), 3u);
  EXPECT_EQ(chat(last.answer), R"([{"role":"assistant","content":"d"}])");
  EXPECT_FALSE(last.good);
  EXPECT_EQ(one(R"({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1.5})").margin, 1.5);
  EXPECT_FALSE(one(R"({"prompt": "a", "chosen": "b", "rejected": "c"})").margin.has_value());
}

TEST(Records, LinesEmptyLinesCrLfAndListsOfJson) {
  const RecordFile file = parse_records("{\"text\": \"a\"}\r\n\n  \n{\"text\": \"b\"}\n", "f.jsonl");
  ASSERT_EQ(file.records.size(), 2u);
  EXPECT_EQ(file.records[1].where, "f.jsonl:4");
  EXPECT_EQ(parse_records(R"([{"text": "a"}, {"text": "b"}])", "f.json").records[1].where, "f.json:[1]");
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(one("{\"text\": \"" + large + "\"}").answer.text.size(), large.size());
}

TEST(Records, ErrorsNameTheLineAndTheField) {
  expect_error("{\"text\": \"a\"}\n{\"text\": 3}\n", "f.jsonl:2: text: expected a text, found number");
  expect_error(R"({"instruction": "a", "outputs": "b"})",
               "f.jsonl:1: output: expected a text, found no such field among instruction, outputs; did you "
               "mean 'outputs'?");
  expect_error(R"({"foo": 1})", "f.jsonl:1: fields: expected messages, conversations");
  expect_error(R"({"prompt": "a", "chosen": "", "rejected": "c"})",
               "f.jsonl:1: chosen: expected a text, found an empty one");
  expect_error(R"({"prompt": "a", "chosen": "b", "rejected": "b"})",
               "f.jsonl:1: rejected: expected another answer than chosen, found the same");
  expect_error(R"({"chosen": "b", "rejected": "c"})",
               "f.jsonl:1: prompt: expected a text, since chosen and rejected are texts, found none");
  expect_error(R"({"messages": [{"role": "user", "content": "a"}]})",
               "f.jsonl:1: messages: expected a message of the assistant, found none");
  expect_error(R"({"messages": [{"role": "robot", "content": "a"}]})",
               "f.jsonl:1: messages[0].role: expected system, user, assistant or tool, found 'robot'");
  expect_error(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]})",
               "messages[1].content: expected what the assistant says, found an empty text");
  expect_error(R"({"conversations": [{"from": "alien", "value": "a"}]})",
               "conversations[0].from: expected human, gpt");
  expect_error("{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}",
               "f.jsonl:2: fields: expected those of text data, as at f.jsonl:1, found those of "
               "prompt-completion data");
  expect_error(R"({"prompt": "a", "completion": "b", "label": "yes"})",
               "label: expected true or false, found string");
  expect_error(
      R"({"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}], "label": true})",
      "f.jsonl:1: messages[1].role: expected assistant, whose answer the label is of, found 'user'");
  expect_error(R"({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "2"})",
               "f.jsonl:1: margin: expected a number, found string");
  expect_error(R"({"prompt": "a", "chosen": [], "rejected": "c"})",
               "f.jsonl:1: chosen: expected a list of messages, found an empty one");
  expect_error("{\"id\": 7, \"text\": \"a\"}\n{\"id\": \"7\", \"text\": \"b\"}\n{\"id\": 7, \"text\": \"c\"}",
               "f.jsonl:3: id: expected one of its own, found 7 as at f.jsonl:1");
  // A megabyte on one line, and what is wrong at its end.
  expect_error("{\"text\": \"a\"}\r\n{\"text\": \"" + std::string(1 << 20, 'x') + "\", }", "f.jsonl:2");
  expect_error("\n\n", "f.jsonl: expected records, found none");
  expect_error("{\"text\": \"a\"}\n{\"text\": ", "f.jsonl:2");
  expect_error("{\"text\": \"a\xff\"}", "f.jsonl:1");
  expect_error("[1, 2]", "f.jsonl:[0]: record: expected an object, found number");
}

TEST(Records, RealData) {
  const std::pair<const char*, RecordSchema> files[] = {
      {"alpaca_en_demo.json", RecordSchema::alpaca},
      {"dpo_en_demo.json", RecordSchema::preference},
      {"kto_en_demo.json", RecordSchema::unpaired},
      {"glaive_toolcall_en_demo.json", RecordSchema::sharegpt}};
  for (const auto& [name, schema] : files) {
    const std::string path = test::shared(std::string("data/datasets/") + name);
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "data not found at " << path;
    const RecordFile file = read_records(path);
    EXPECT_EQ(file.schema, schema) << name;
    EXPECT_GT(file.records.size(), 100u);
  }
}

}  // namespace
}  // namespace qkv
