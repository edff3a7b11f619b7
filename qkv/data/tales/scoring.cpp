// Whether a generated text answers a question or follows an instruction.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "qkv/data/tales.h"
#include "qkv/data/tales/render.h"

namespace qkv::tales {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
bool is_word(char c) {
  return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z');
}

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::string_view up_to(std::string_view text, std::string_view mark) {
  return text.substr(0, text.find(mark));
}

// Lower-case words, without punctuation; apostrophes and hyphens inside words go too ("tom's" is "toms").
std::vector<std::string> plain_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    if (is_word(c)) {
      word += lower(c);
    } else if (c != '\'' && c != '-' && !word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  return words;
}

// The words that count: without articles, and without "the answer is" or "it is" before them.
std::vector<std::string> answer_words(std::string_view text) {
  auto words = plain_words(text);
  std::erase_if(words, [](const std::string& word) { return word == "a" || word == "an" || word == "the"; });
  for (const auto* opening : {"answer", "it", "its", "is"}) {
    if (words.size() > 1 && words.front() == opening) words.erase(words.begin());
  }
  return words;
}

std::optional<double> small_number_word(std::string_view word) {
  static constexpr std::array<std::string_view, 21> kWords = {
      "zero",     "one",     "two",     "three",     "four",     "five",     "six",
      "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",   "thirteen",
      "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"};
  const auto found = std::find(kWords.begin(), kWords.end(), word);
  if (found == kWords.end()) return std::nullopt;
  return static_cast<double>(found - kWords.begin());
}

// All numbers of a text in order: digits with thousands commas and decimals, a minus that touches its number,
// and words.
std::vector<double> numbers_in(std::string_view text) {
  std::vector<double> numbers;
  size_t i = 0;
  while (i < text.size()) {
    const size_t start = i;
    if (is_digit(text[i])) {
      std::string digits;
      bool point = false;
      while (i < text.size()) {
        const bool more = i + 1 < text.size() && is_digit(text[i + 1]);
        const bool thousands =
            more && text[i] == ',' && i + 3 < text.size() && is_digit(text[i + 2]) && is_digit(text[i + 3]);
        if (is_digit(text[i])) {
          digits += text[i];
        } else if (text[i] == '.' && more && !point) {
          digits += '.';
          point = true;
        } else if (!thousands) {
          break;
        }
        ++i;
      }
      const bool negative = start > 0 && text[start - 1] == '-' && (start < 2 || text[start - 2] == ' ');
      double value = 0;
      std::from_chars(digits.data(), digits.data() + digits.size(), value);
      numbers.push_back(negative ? -value : value);
    } else if (is_word(text[i])) {
      while (i < text.size() && is_word(text[i])) ++i;
      std::string word(text.substr(start, i - start));
      std::transform(word.begin(), word.end(), word.begin(), lower);
      if (const auto number = small_number_word(word)) numbers.push_back(*number);
    } else {
      ++i;
    }
  }
  return numbers;
}

std::string lowered(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

// The first line with something in it, before the end of the text and before a further question.
std::string_view first_line(std::string_view generated) {
  std::string_view text = trimmed(up_to(generated, kEndOfText));
  text = trimmed(up_to(text, "\n"));
  if (lowered(text.substr(0, 7)) == "answer:") text = trimmed(text.substr(7));
  return trimmed(up_to(text, "Question:"));
}

// Up to the first full stop, exclamation or question mark that ends a word; "Mr." is not one.
std::string_view first_sentence(std::string_view line) {
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '.' && line[i] != '!' && line[i] != '?') continue;
    const bool title = i >= 2 && (line.substr(i - 2, 2) == "Mr" || line.substr(i - 2, 2) == "rs");
    if (!title && (i + 1 == line.size() || line[i + 1] == ' ')) return line.substr(0, i);
  }
  return line;
}

bool contains_words(const std::vector<std::string>& words, const std::vector<std::string>& wanted) {
  return std::search(words.begin(), words.end(), wanted.begin(), wanted.end()) != words.end();
}

bool same_number(double a, double b) {
  return std::fabs(a - b) < 1e-9;
}

}  // namespace

bool matches_answer(const std::vector<std::string>& accepted, bool numeric, std::string_view generated) {
  const std::string_view line = first_line(generated);
  if (numeric) {
    const std::string text = lowered(line);
    const size_t announced = text.find("answer is");
    const auto found = numbers_in(announced == std::string::npos ? std::string_view(text)
                                                                 : std::string_view(text).substr(announced));
    if (found.empty()) return false;
    const double number = announced == std::string::npos ? found.back() : found.front();
    return std::any_of(accepted.begin(), accepted.end(), [&](const std::string& answer) {
      const auto wanted = numbers_in(answer);
      return !wanted.empty() && same_number(wanted.front(), number);
    });
  }
  // Worked answers end in "The answer is ...": that sentence counts, wherever it stands in the line.
  std::string_view said = line;
  if (const size_t announced = lowered(line).find("the answer is"); announced != std::string::npos)
    said = line.substr(announced);
  const auto words = answer_words(first_sentence(said));
  return std::any_of(accepted.begin(), accepted.end(),
                     [&](const std::string& answer) { return answer_words(answer) == words; });
}

bool is_correct(const Question& question, std::string_view generated) {
  return matches_answer(question.accepted, question.numeric, generated);
}

bool is_correct(const Instruction& instruction, std::string_view generated) {
  const std::string_view reply = trimmed(up_to(generated, kEndOfText));
  if (reply.empty()) return false;
  const auto words = plain_words(reply);
  if (instruction.short_answer && !matches_answer(instruction.accepted, instruction.numeric, reply))
    return false;
  if (!instruction.short_answer && !instruction.accepted.empty()) {
    const auto line = plain_words(up_to(reply, "\n"));
    const bool equal = std::any_of(instruction.accepted.begin(), instruction.accepted.end(),
                                   [&](const std::string& answer) { return plain_words(answer) == line; });
    if (!equal) return false;
  }
  for (const auto& wanted : instruction.required) {
    if (!contains_words(words, plain_words(wanted))) return false;
  }
  const auto named =
      std::count_if(instruction.list_members.begin(), instruction.list_members.end(),
                    [&](const std::string& member) { return contains_words(words, plain_words(member)); });
  return instruction.list_count == 0 || named >= instruction.list_count;
}

}  // namespace qkv::tales
