// The embedded corpus: a generator of short simple-English texts with checkable tasks, so that a model can be
// trained, aligned and measured from nothing but this program. In the spirit of TinyStories (Eldan & Li,
// 2023) and the bAbI tasks (Weston et al., 2015); every template and word list is this project's own.
//
// Everything is a pure function of (seed, split, index): any thread makes any part, and the same seed gives
// the same bytes on every platform. All text is printable ASCII plus '\n'.
//
// Held-out combinations. Each document states facts with keys such as "has|Mia|red kite", "story|Tom|fox
// kite|park" or "sum|38|47"; held_out(key) hashes a key to one of the two splits, independent of the seed.
// Documents of Split::train hold only keys that hash to training, those of Split::held_out only keys that do
// not: no held-out fact is ever trained on.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qkv::tales {

enum class Split { train, held_out };
enum class Kind { story, question, arithmetic, instruction, fact };
inline constexpr int kKinds = 5;
// "story", "question", "arithmetic", "instruction", "fact".
std::string_view kind_name(Kind kind);

// The line that separates documents in train.txt and valid.txt.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

struct Options {
  uint64_t seed = 0;
  uint64_t bytes = 10'000'000;  // size of train.txt, met within 1 % or one document; >= 10000
  uint64_t documents = 0;       // if not 0: train.txt holds this many documents and `bytes` is ignored
  uint64_t valid_bytes = 0;     // size of valid.txt; 0: a fiftieth of train.txt, within [20 kB, 1 MB]
  // Shares of train.txt by bytes, relative to their sum (approximate: within a few percent for 1 MB and
  // more). Each >= 0, one > 0.
  double story_share = 0.25;
  double question_share = 0.40;
  double arithmetic_share = 0.20;
  double instruction_share = 0.10;
  double fact_share = 0.05;
  // Lines of questions.jsonl, sft.jsonl and preferences.jsonl; sft_valid.jsonl and preferences_valid.jsonl
  // get a tenth, at least 50.
  uint64_t questions = 2000;
  uint64_t instructions = 4000;
  uint64_t preferences = 2000;
  // The same of styles.jsonl, style_preferences.jsonl and arithmetic.jsonl.
  uint64_t styles = 4000;
};

// Throws Error naming the option unless the options can be met.
void check(const Options& options);

// True if facts with this key belong to the held-out split (one key in eight, one in five of arithmetic).
bool held_out(std::string_view key);

struct Document {
  Kind kind = Kind::story;
  std::string text;               // several lines, no newline at the end, never contains kEndOfText
  std::vector<std::string> keys;  // of the facts it states, all of the split it was made for
};

// The index-th document of a split; kinds are mixed by the shares. Throws Error on impossible options.
Document document(const Options& options, Split split, uint64_t index);
// The same with the kind given.
Document document(const Options& options, Split split, uint64_t index, Kind kind);

struct Question {
  std::string kind;    // one of question_kinds()
  std::string prompt;  // what a base model is prompted with: "<passage>\nQuestion: ...\nAnswer:"
  std::string answer;  // the short answer: "a red kite", "85"
  std::vector<std::string> accepted;  // every right short answer, `answer` first
  std::string completion;  // what follows the prompt in training text after a space, steps included
  bool numeric = false;    // scored by the number found in the text
  bool copied = false;     // the answer's words stand in the passage
  double chance = 0;       // of a guess among the answers that fit the question's form
  std::vector<std::string> keys;
};

struct QuestionKind {
  std::string name;
  std::string description;
  int difficulty;   // 1 copy one entity or one fact, 2 choose by relation or a few steps, 3 follow changes or
                    // combine facts
  bool arithmetic;  // else about a passage
};
// All kinds of questions about passages and of arithmetic.
const std::vector<QuestionKind>& question_kinds();

// The index-th question of a split. `kind` empty: all kinds in turn. Throws Error on an unknown kind, naming
// the nearest.
Question question(const Options& options, Split split, uint64_t index, std::string_view kind = "");

// Whether a generated continuation of the prompt answers the question. Reads the first line up to kEndOfText;
// text answers match if the first sentence equals an accepted answer up to case, punctuation and articles;
// numeric answers match if the number after "the answer is", or else the last number of the line, is equal
// (number words up to twenty count as numbers).
bool is_correct(const Question& question, std::string_view generated);

struct Instruction {
  std::string kind;        // "tell_story", "sentence_with_words", "list", ...
  std::string prompt;      // what the user says
  std::string completion;  // a right reply
  // How a reply is checked: its first line equals one of `accepted` (if not empty; with `short_answer` by the
  // rule of is_correct(Question), `numeric` as there), it contains all of `required` as whole words, and it
  // names `list_count` different members of `list_members` (if not 0).
  std::vector<std::string> accepted;
  bool short_answer = false;
  bool numeric = false;
  std::vector<std::string> required;
  std::vector<std::string> list_members;
  int list_count = 0;
  std::vector<std::string> keys;
};
const std::vector<std::string>& instruction_kinds();
// The index-th instruction of a split; `kind` as in question().
Instruction instruction(const Options& options, Split split, uint64_t index, std::string_view kind = "");
bool is_correct(const Instruction& instruction, std::string_view generated);

enum class Fault { wrong_answer, off_topic, rude, repeats, unfinished };
inline constexpr int kFaults = 5;
// "wrong_answer", "off_topic", "rude", "repeats", "unfinished".
std::string_view fault_name(Fault fault);
struct Preference {
  std::string prompt;  // what the user says
  std::string chosen;
  std::string rejected;
  Fault fault = Fault::wrong_answer;  // of `rejected`
  std::vector<std::string> keys;
};
Preference preference(const Options& options, Split split, uint64_t index);

// One reply in two styles, told apart by how it begins: "Happy to help! 3 + 4 = 7. The answer is 7." and
// "If I must. 3 + 4 = 7. The answer is 7.". Half of the prompts are arithmetic.
enum class Style { friendly, curt };
struct StyledReply {
  std::string prompt, friendly, curt;
  Style shown = Style::friendly;  // in styles.jsonl: each as often
  std::vector<std::string> keys;
};
StyledReply styled_reply(const Options& options, Split split, uint64_t index);
// Of any text; nullopt if it begins like neither.
std::optional<Style> style_of(std::string_view reply);
// A regular expression that finds friendly replies: what a reward is made of.
std::string friendly_pattern();
// Arithmetic as a user asks it, with the accepted answers.
Instruction asked_arithmetic(const Options& options, Split split, uint64_t index);

// The knowledge base of a seed: an invented world of towns, rivers, people, animals and shops. One document
// per entity. Its names never occur in training text, so that answering needs the document (retrieval), while
// the form of such documents and of questions about them does occur, about other invented worlds.
struct FactDocument {
  std::string id;     // "town-3"
  std::string title;  // "The town of Pellow"
  std::string text;   // a few sentences
  int facts = 0;      // how many it states
};
struct FactQuestion {
  std::string prompt;  // the question alone
  std::string answer;
  std::vector<std::string> accepted;
  bool numeric = false;
  int hops = 1;                        // 1: one document answers it; 2: two are needed
  std::vector<std::string> documents;  // ids of those
};
std::vector<FactDocument> fact_documents(uint64_t seed);
std::vector<FactQuestion> fact_questions(uint64_t seed);
// The scorer of is_correct() for any question with these accepted answers.
bool matches_answer(const std::vector<std::string>& accepted, bool numeric, std::string_view generated);

struct FileSummary {
  std::string name;
  uint64_t bytes = 0;
  uint64_t records = 0;
};
struct QuestionKindSummary {
  std::string kind;
  uint64_t questions = 0;
  double chance = 0;     // mean over the questions: a guess among the answers that fit
  double commonest = 0;  // share of the kind's most frequent answer: what always saying it scores
};
struct Summary {
  std::vector<FileSummary> files;
  uint64_t documents[kKinds] = {};  // of train.txt, by kind
  uint64_t document_bytes[kKinds] = {};
  uint64_t sentences = 0;                      // of train.txt
  uint64_t distinct_sentences = 0;             // HyperLogLog estimate, within about 1 %
  std::vector<QuestionKindSummary> questions;  // of questions.jsonl
};

// Called from the calling thread with bytes of all text written so far and expected.
using ProgressCallback = std::function<void(uint64_t done, uint64_t total)>;

// Writes into `directory` (created if missing), each file atomically and none before all are complete:
//   train.txt, valid.txt            documents, each followed by a line kEndOfText
//   questions.jsonl                 held-out {"kind","prompt","answer","accepted","numeric","chance"}
//   sft.jsonl, sft_valid.jsonl      {"messages":[{"role":"user",...},{"role":"assistant",...}]}
//   preferences.jsonl, preferences_valid.jsonl   {"prompt","chosen","rejected","fault"}
//   styles.jsonl, styles_valid.jsonl                        as sft.jsonl, each reply in one of two styles
//   style_preferences.jsonl, style_preferences_valid.jsonl  {"prompt","chosen","rejected"}: friendly before curt
//   arithmetic.jsonl, arithmetic_valid.jsonl                {"prompt","answer","accepted","numeric"}
//   facts.jsonl                     {"id","title","text"}
//   facts_questions.jsonl           {"prompt","answer","accepted","hops","documents"}
//   README.md                       what the files are
// Memory is bounded (a few MB per thread) whatever the size. Throws Error on impossible options or a failed
// write, and when interrupted(); then no file is left or changed.
Summary write_corpus(const Options& options, const std::string& directory,
                     const ProgressCallback& progress = {});

}  // namespace qkv::tales
