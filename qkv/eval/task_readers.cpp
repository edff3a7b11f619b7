#include "qkv/eval/task_readers.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <optional>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"

namespace qkv {
namespace {

struct Item {
  Json json;
  std::string where;  // "<path>:<line or index>"
};

std::string read_plain(const std::string& path) {
  std::string text = read_file(path);
  require(!text.starts_with("BZh") && !text.starts_with("\x1f\x8b"),
          "{}: expected text, found a compressed file; unpack it first", path);
  return text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    if (!lines.back().empty() && lines.back().back() == '\r') lines.back().pop_back();
    begin = end + 1;
  }
  return lines;
}

std::vector<Item> read_items(const std::string& path) {
  const std::string text = read_plain(path);
  std::vector<Item> items;
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '[') {
    Json list = parse_json(text, path);
    for (size_t i = 0; i < list.size(); ++i)
      items.push_back({std::move(list[i]), fmt::format("{}:{}", path, i + 1)});
  } else {
    size_t number = 0;
    for (const std::string& line : lines_of(text)) {
      ++number;
      const std::string where = fmt::format("{}:{}", path, number);
      if (line.find_first_not_of(" \t") != std::string::npos)
        items.push_back({parse_json(line, where), where});
    }
  }
  require(!items.empty(), "{}: expected items, found none", path);
  return items;
}

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1));
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// What an instruction-layout item asks: the part after the first ": ", its numbered options, and the right
// one.
struct Instruction {
  std::string question;
  std::vector<std::string> options;
  size_t correct = 0;
};

// `label` is what options are numbered by: "Answer", "Solution", "Option".
std::optional<Instruction> parse_instruction(const JsonView& item, const std::string& label) {
  if (!item.has("instruction")) return std::nullopt;
  const std::string text = item.string("instruction");
  const auto marker = [&](size_t n) { return label + std::to_string(n) + ":"; };
  size_t begin = text.find(": "), at = text.find(marker(1));
  require(begin != std::string::npos && at != std::string::npos && begin < at,
          "{}: expected an instruction with '{}', found none", item.where(), marker(1));
  Instruction result;
  result.question = trimmed(text.substr(begin + 2, at - begin - 2));
  const size_t last = std::min(text.rfind("Answer format:"), text.size());
  for (size_t n = 1; at != std::string::npos && at < last; ++n) {
    begin = at + marker(n).size();
    at = text.find(marker(n + 1), begin);
    result.options.push_back(trimmed(text.substr(begin, std::min(at, last) - begin)));
  }
  const std::string answer = item.string("answer");
  const size_t digits = answer.find_last_not_of("0123456789") + 1;
  const long number = digits < answer.size() ? std::stol(answer.substr(digits)) : 0;
  require(1 <= number && number <= static_cast<long>(result.options.size()),
          "{}: key 'answer': expected one of {} options, found '{}'", item.where(), result.options.size(),
          answer);
  result.correct = static_cast<size_t>(number - 1);
  return result;
}

// A context, and choices that follow it after a space.
ChoiceQuestion question_of(std::string context, std::vector<std::string> choices, size_t correct) {
  ChoiceQuestion question;
  question.contexts = {std::move(context)};
  for (const auto& choice : choices) question.continuations.push_back(" " + choice);
  question.answers = std::move(choices);
  question.correct = correct;
  return question;
}

// An index given as a number or a text.
size_t index_of(const JsonView& item, std::string_view key, size_t choices, long first = 0) {
  const Json* value = item.find(key);
  long index = -1;
  if (value != nullptr && value->is_number_integer()) index = value->get<long>() - first;
  if (value != nullptr && value->is_string()) {
    const std::string text = value->get<std::string>();
    if (!text.empty() && text.size() < 4 &&
        std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) {
      index = std::stol(text) - first;
    }
  }
  require(0 <= index && index < static_cast<long>(choices), "{}: key '{}': expected {} to {}, found {}",
          item.where(), key, first, first + static_cast<long>(choices) - 1,
          value == nullptr ? "nothing" : value->dump());
  return static_cast<size_t>(index);
}

// The harness's cleaning of WikiHow text.
std::string clean_hellaswag(std::string text) {
  text = trimmed(text);
  replace_all(text, " [title]", ". ");
  for (size_t open = text.find('['); open != std::string::npos; open = text.find('[', open)) {
    const size_t close = text.find(']', open);
    if (close == std::string::npos) break;
    text.erase(open, close - open + 1);
  }
  replace_all(text, "  ", " ");
  return text;
}

std::string capitalized(std::string text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    text[i] = static_cast<char>(i == 0 ? std::toupper(c) : std::tolower(c));
  }
  return text;
}

std::vector<ChoiceQuestion> read_hellaswag_text(const std::string& path,
                                                const std::vector<std::string>& lines) {
  constexpr size_t per_item = 6;
  require(lines.size() % per_item == 0,
          "{}: expected six lines an item (context, right ending's index, four endings), found {} lines",
          path, lines.size());
  std::vector<ChoiceQuestion> questions;
  for (size_t i = 0; i < lines.size(); i += per_item) {
    const std::string& index = lines[i + 1];
    require(index.size() == 1 && '0' <= index[0] && index[0] <= '3',
            "{}:{}: expected the right ending's index, 0 to 3, found '{}'", path, i + 2, index);
    std::vector<std::string> endings;
    for (size_t e = 2; e < per_item; ++e) endings.push_back(clean_hellaswag(lines[i + e]));
    questions.push_back(
        question_of(clean_hellaswag(lines[i]), std::move(endings), static_cast<size_t>(index[0] - '0')));
  }
  return questions;
}

ChoiceQuestion arc_question(const Item& item) {
  const JsonView view(item.json, item.where);
  if (const auto instruction = parse_instruction(view, "Answer")) {
    return question_of("Question: " + instruction->question + "\nAnswer:", instruction->options,
                       instruction->correct);
  }
  const Json* stem = view.find("question");
  require(stem != nullptr && (stem->is_string() || stem->is_object()),
          "{}: key 'question': expected a text or an object with 'stem'", item.where);
  std::vector<std::string> texts, labels;
  if (stem->is_string()) {  // the Hugging Face dataset: choices are two parallel lists
    const JsonView choices = view.object("choices");
    texts = choices.strings_or_empty("text");
    labels = choices.strings_or_empty("label");
  } else {  // the authors' files
    const Json* choices = JsonView(*stem, item.where, "question").find("choices");
    require(choices != nullptr && choices->is_array(), "{}: key 'question.choices': expected a list",
            item.where);
    for (const Json& choice : *choices) {
      const JsonView one(choice, item.where, "question.choices");
      texts.push_back(one.string("text"));
      labels.push_back(one.string("label"));
    }
  }
  const std::string key = view.string("answerKey");
  const auto right = std::find(labels.begin(), labels.end(), key);
  require(texts.size() == labels.size() && right != labels.end(),
          "{}: key 'answerKey': expected one of the labels {}, found '{}'", item.where,
          fmt::join(labels, ", "), key);
  const std::string text =
      stem->is_string() ? stem->get<std::string>() : JsonView(*stem, item.where, "question").string("stem");
  return question_of("Question: " + text + "\nAnswer:", texts, static_cast<size_t>(right - labels.begin()));
}

ChoiceQuestion winogrande_question(const Item& item) {
  const JsonView view(item.json, item.where);
  std::string sentence;
  ChoiceQuestion question;
  if (const auto instruction = parse_instruction(view, "Option")) {
    sentence = instruction->question;
    question.answers = instruction->options;
    question.correct = instruction->correct;
  } else {
    sentence = view.string("sentence");
    question.answers = {view.string("option1"), view.string("option2")};
    question.correct = index_of(view, "answer", 2, 1);
  }
  const size_t blank = sentence.find('_');
  require(blank != std::string::npos, "{}: expected a sentence with a blank '_', found '{}'", item.where,
          sentence);
  for (const auto& option : question.answers) question.contexts.push_back(sentence.substr(0, blank) + option);
  question.continuations = {" " + trimmed(sentence.substr(blank + 1))};
  return question;
}

}  // namespace

std::vector<ChoiceQuestion> read_lambada(const std::string& path) {
  std::vector<ChoiceQuestion> questions;
  for (const Item& item : read_items(path)) {
    const std::string text = JsonView(item.json, item.where).string("text");
    const size_t space = text.rfind(' ');
    require(space != std::string::npos && space + 1 < text.size(),
            "{}: key 'text': expected several words, found '{}'", item.where, text);
    questions.push_back(question_of(text.substr(0, space), {text.substr(space + 1)}, 0));
  }
  return questions;
}

std::vector<ChoiceQuestion> read_hellaswag(const std::string& path) {
  const std::string text = read_plain(path);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] != '[' && text[first] != '{')
    return read_hellaswag_text(path, lines_of(text));
  std::vector<ChoiceQuestion> questions;
  for (const Item& item : read_items(path)) {
    const JsonView view(item.json, item.where);
    const std::string context = view.string("ctx_a") + " " + capitalized(view.string_or("ctx_b", ""));
    std::vector<std::string> endings;
    for (const auto& ending : view.strings_or_empty("endings")) endings.push_back(clean_hellaswag(ending));
    const size_t right = index_of(view, "label", endings.size());
    questions.push_back(question_of(clean_hellaswag(view.string("activity_label") + ": " + context),
                                    std::move(endings), right));
  }
  return questions;
}

std::vector<ChoiceQuestion> read_arc(const std::string& path) {
  std::vector<ChoiceQuestion> questions;
  for (const Item& item : read_items(path)) questions.push_back(arc_question(item));
  return questions;
}

std::vector<ChoiceQuestion> read_piqa(const std::string& path) {
  std::vector<ChoiceQuestion> questions;
  for (const Item& item : read_items(path)) {
    const JsonView view(item.json, item.where);
    if (const auto instruction = parse_instruction(view, "Solution")) {
      questions.push_back(question_of(
          "Question: " + instruction->question + "\nAnswer:", instruction->options, instruction->correct));
    } else {
      questions.push_back(question_of(
          "Question: " + view.string("goal") + "\nAnswer:", {view.string("sol1"), view.string("sol2")},
          index_of(view, "label", 2)));
    }
  }
  return questions;
}

std::vector<ChoiceQuestion> read_winogrande(const std::string& path) {
  std::vector<ChoiceQuestion> questions;
  for (const Item& item : read_items(path)) questions.push_back(winogrande_question(item));
  return questions;
}

}  // namespace qkv
