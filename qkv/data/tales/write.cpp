// The corpus on disk: batches of documents are made by all threads and written in order, so that the files do
// not depend on the number of threads and memory does not grow with them.
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_set>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/data/tales/corpus.h"

namespace qkv::tales {
namespace {

constexpr int64_t kBatch = 2048;  // records made before they are written
constexpr int64_t kGrain = 32;    // records one thread takes at a time

// Counts distinct hashes in constant memory (Flajolet et al., "HyperLogLog", 2007): 65536 registers, error
// about 0.4 %.
class DistinctCounter {
 public:
  void add(uint64_t hash) {
    auto& longest = registers_[hash >> 48];
    longest = std::max(longest, static_cast<uint8_t>(std::countl_zero(hash << 16 | 0x8000) + 1));
  }
  uint64_t estimate() const {
    const double m = static_cast<double>(registers_.size());
    double sum = 0;
    int64_t empty = 0;
    for (const uint8_t longest : registers_) {
      sum += std::ldexp(1.0, -longest);
      empty += longest == 0;
    }
    const double raw = 0.7213 / (1 + 1.079 / m) * m * m / sum;
    // Few values: count the empty registers instead.
    const double count = raw <= 2.5 * m && empty > 0 ? m * std::log(m / static_cast<double>(empty)) : raw;
    return static_cast<uint64_t>(std::llround(count));
  }

 private:
  std::vector<uint8_t> registers_ = std::vector<uint8_t>(65536);
};

// Hashes of the sentences: what ends with '.', '!', '?' before a space, or with the line.
void hash_sentences(std::string_view text, std::vector<uint64_t>& hashes) {
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    const bool line = i == text.size() || text[i] == '\n';
    const bool stop = !line && text[i] == ' ' && i > 0 &&
                      std::string_view(".!?\"").find(text[i - 1]) != std::string_view::npos;
    if (!line && !stop) continue;
    if (i > begin) hashes.push_back(XXH3_64bits(text.data() + begin, i - begin));
    begin = i + 1;
  }
}

class Corpus {
 public:
  Corpus(const Options& options, std::string directory, const ProgressCallback& progress)
      : options_(options), directory_(std::move(directory)), progress_(progress) {
    std::error_code code;
    std::filesystem::create_directories(directory_, code);
    require(!code, "{}: cannot create directory: {}", directory_, code.message());
  }

  Summary write() {
    const uint64_t train = options_.documents > 0 ? options_.documents * 200 : options_.bytes;
    const uint64_t valid =
        options_.valid_bytes > 0 ? options_.valid_bytes : std::clamp<uint64_t>(train / 50, 20'000, 1'000'000);
    expected_ = train + valid;
    write_documents("train.txt", Split::train, options_.bytes, options_.documents);
    write_documents("valid.txt", Split::held_out, valid, 0);
    summary_.distinct_sentences = distinct_.estimate();
    write_questions();
    const auto tenth = [](uint64_t count) { return count == 0 ? 0 : std::max<uint64_t>(50, count / 10); };
    write_instructions("sft.jsonl", Split::train, options_.instructions);
    write_instructions("sft_valid.jsonl", Split::held_out, tenth(options_.instructions));
    write_preferences("preferences.jsonl", Split::train, options_.preferences);
    write_preferences("preferences_valid.jsonl", Split::held_out, tenth(options_.preferences));
    for (const auto& [suffix, split, count] : {std::tuple{"", Split::train, options_.styles},
                                               std::tuple{"_valid", Split::held_out, tenth(options_.styles)}}) {
      write_styles(fmt::format("styles{}.jsonl", suffix), split, count);
      write_style_preferences(fmt::format("style_preferences{}.jsonl", suffix), split, count);
      write_arithmetic(fmt::format("arithmetic{}.jsonl", suffix), split, count);
    }
    write_facts();
    write_readme();
    for (auto& file : files_) file->commit();
    return std::move(summary_);
  }

 private:
  AtomicFile& open(const std::string& name) {
    files_.push_back(std::make_unique<AtomicFile>(directory_ + "/" + name));
    summary_.files.push_back({name, 0, 0});
    return *files_.back();
  }

  void close() {
    summary_.files.back().bytes = files_.back()->size();
    report();
  }

  void add(std::string_view text) {
    files_.back()->write(text);
    ++summary_.files.back().records;
  }

  void report() {
    require(!interrupted(), "[tales] interrupted; nothing was written to {}", directory_);
    if (!progress_) return;
    uint64_t done = 0;
    for (const auto& file : files_) done += file->size();
    progress_(std::min(done, expected_), expected_);
  }

  // Makes records [first, first + n) on all threads.
  template <typename Record>
  static std::vector<Record> batch(uint64_t first, int64_t n, FunctionRef<Record(uint64_t)> make) {
    std::vector<Record> records(static_cast<size_t>(n));
    parallel_items((n + kGrain - 1) / kGrain, [&](int64_t part, int) {
      for (int64_t i = part * kGrain; i < std::min(n, (part + 1) * kGrain); ++i) {
        records[static_cast<size_t>(i)] = make(first + static_cast<uint64_t>(i));
      }
    });
    return records;
  }

  struct Made {
    Kind kind;
    std::string text;  // with the separator
    std::vector<uint64_t> sentences;
  };

  // Until `documents` (if not 0) or else until no further document fits into `bytes`.
  void write_documents(const std::string& name, Split split, uint64_t bytes, uint64_t documents) {
    AtomicFile& file = open(name);
    const bool train = split == Split::train;
    constexpr int kMisses = 200;  // documents in a row that are too long for the rest
    int misses = 0;
    uint64_t written = 0;
    for (uint64_t index = 0;; index += kBatch) {
      const int64_t n =
          documents > 0 ? static_cast<int64_t>(std::min<uint64_t>(kBatch, documents - index)) : kBatch;
      const auto made = batch<Made>(index, n, [&](uint64_t i) {
        Document one = document(options_, split, i);
        Made result{one.kind, std::move(one.text), {}};
        if (train) hash_sentences(result.text, result.sentences);
        result.text += '\n';
        result.text += kEndOfText;
        result.text += '\n';
        return result;
      });
      for (const auto& one : made) {
        if (documents == 0 && file.size() + one.text.size() > bytes) {
          ++misses;
          if (misses > kMisses || bytes - file.size() < bytes / 1000) break;
          continue;
        }
        misses = 0;
        ++written;
        add(one.text);
        if (!train) continue;
        ++summary_.documents[static_cast<int>(one.kind)];
        summary_.document_bytes[static_cast<int>(one.kind)] += one.text.size();
        summary_.sentences += one.sentences.size();
        for (const uint64_t hash : one.sentences) distinct_.add(hash);
      }
      report();
      if (documents > 0 ? written == documents : misses > 0) break;
    }
    close();
  }

  // `make` returns one line of JSON.
  void write_lines(const std::string& name, uint64_t count, FunctionRef<std::string(uint64_t)> make) {
    open(name);
    for (uint64_t index = 0; index < count; index += kBatch) {
      const auto lines =
          batch<std::string>(index, static_cast<int64_t>(std::min<uint64_t>(kBatch, count - index)), make);
      for (const auto& line : lines) add(line);
      report();
    }
    close();
  }

  // No question twice: kinds with few held-out problems come less often, the others fill up.
  void write_questions() {
    open("questions.jsonl");
    struct Tally {
      uint64_t questions = 0;
      double chance = 0;
      std::map<std::string, uint64_t> answers;
    };
    std::map<std::string, Tally> tallies;
    std::unordered_set<uint64_t> seen;
    const uint64_t limit = options_.questions * 50;
    for (uint64_t index = 0; index < limit && seen.size() < options_.questions; index += kBatch) {
      const auto made =
          batch<Question>(index, kBatch, [&](uint64_t i) { return question(options_, Split::held_out, i); });
      for (const auto& one : made) {
        if (seen.size() == options_.questions) break;
        if (!seen.insert(XXH3_64bits(one.prompt.data(), one.prompt.size())).second) continue;
        Tally& tally = tallies[one.kind];
        ++tally.questions;
        tally.chance += one.chance;
        if (tally.answers.size() < 4096) ++tally.answers[one.answer];
        add(dump_json(Json{{"kind", one.kind},
                           {"prompt", one.prompt},
                           {"answer", one.answer},
                           {"accepted", one.accepted},
                           {"numeric", one.numeric},
                           {"chance", std::round(one.chance * 1e4) / 1e4}}) +
            "\n");
      }
      report();
    }
    close();
    for (const auto& kind : question_kinds()) {
      const auto found = tallies.find(kind.name);
      if (found == tallies.end()) continue;
      const Tally& tally = found->second;
      uint64_t commonest = 0;
      for (const auto& [answer, count] : tally.answers) commonest = std::max(commonest, count);
      const double n = static_cast<double>(tally.questions);
      summary_.questions.push_back(
          {kind.name, tally.questions, tally.chance / n, static_cast<double>(commonest) / n});
    }
  }

  static std::string chat_line(const std::string& prompt, const std::string& reply) {
    const Json user{{"role", "user"}, {"content", prompt}}, assistant{{"role", "assistant"}, {"content", reply}};
    return dump_json(Json{{"messages", Json::array({user, assistant})}}) + "\n";
  }

  void write_instructions(const std::string& name, Split split, uint64_t count) {
    write_lines(name, count, [&](uint64_t i) {
      const Instruction one = instruction(options_, split, i);
      return chat_line(one.prompt, one.completion);
    });
  }

  void write_styles(const std::string& name, Split split, uint64_t count) {
    write_lines(name, count, [&](uint64_t i) {
      const StyledReply one = styled_reply(options_, split, i);
      return chat_line(one.prompt, one.shown == Style::friendly ? one.friendly : one.curt);
    });
  }

  // Of other prompts than styles.jsonl has.
  void write_style_preferences(const std::string& name, Split split, uint64_t count) {
    write_lines(name, count, [&](uint64_t i) {
      const StyledReply one = styled_reply(options_, split, options_.styles + i);
      return dump_json(Json{{"prompt", one.prompt}, {"chosen", one.friendly}, {"rejected", one.curt}}) + "\n";
    });
  }

  void write_arithmetic(const std::string& name, Split split, uint64_t count) {
    write_lines(name, count, [&](uint64_t i) {
      const Instruction one = asked_arithmetic(options_, split, i);
      return dump_json(Json{{"prompt", one.prompt},
                            {"answer", one.accepted.front()},
                            {"accepted", one.accepted},
                            {"numeric", one.numeric}}) +
             "\n";
    });
  }

  void write_preferences(const std::string& name, Split split, uint64_t count) {
    write_lines(name, count, [&](uint64_t i) {
      const Preference one = preference(options_, split, i);
      return dump_json(Json{{"prompt", one.prompt},
                            {"chosen", one.chosen},
                            {"rejected", one.rejected},
                            {"fault", fault_name(one.fault)}}) +
             "\n";
    });
  }

  void write_facts() {
    open("facts.jsonl");
    for (const auto& one : fact_documents(options_.seed)) {
      add(dump_json(Json{{"id", one.id}, {"title", one.title}, {"text", one.text}}) + "\n");
    }
    close();
    open("facts_questions.jsonl");
    for (const auto& one : fact_questions(options_.seed)) {
      add(dump_json(Json{{"prompt", one.prompt},
                         {"answer", one.answer},
                         {"accepted", one.accepted},
                         {"numeric", one.numeric},
                         {"hops", one.hops},
                         {"documents", one.documents}}) +
          "\n");
    }
    close();
  }

  void write_readme() {
    std::string text = fmt::format(
        "# Tales\n\n"
        "Short simple-English texts made by `qkv data make-tales` with seed {}. The same options give the "
        "same bytes.\n\n"
        "| file | records | what |\n|---|---|---|\n",
        options_.seed);
    static const std::map<std::string, std::string> kWhat = {
        {"train.txt", "documents, each followed by a line `<|endoftext|>`"},
        {"valid.txt", "the same, from held-out facts"},
        {"questions.jsonl",
         "held-out questions: kind, prompt, answer, accepted (all right answers), numeric, chance"},
        {"sft.jsonl", "instructions as chat messages, from training facts"},
        {"sft_valid.jsonl", "the same, from held-out facts"},
        {"preferences.jsonl", "prompt, chosen, rejected and the fault of the rejected, from training facts"},
        {"preferences_valid.jsonl", "the same, from held-out facts"},
        {"styles.jsonl", "instructions as chat messages, the reply in one of two styles: friendly or curt"},
        {"styles_valid.jsonl", "the same, from held-out facts"},
        {"style_preferences.jsonl", "prompt, chosen (friendly) and rejected (curt)"},
        {"style_preferences_valid.jsonl", "the same, from held-out facts"},
        {"arithmetic.jsonl", "arithmetic as a user asks it: prompt, answer, accepted, numeric"},
        {"arithmetic_valid.jsonl", "the same, from held-out numbers"},
        {"facts.jsonl",
         "documents about an invented world whose names never occur in train.txt: id, title, text"},
        {"facts_questions.jsonl",
         "questions about them: prompt, answer, accepted, numeric, hops, documents (the ids needed)"}};
    for (const auto& file : summary_.files)
      text += fmt::format("| {} | {} | {} |\n", file.name, file.records, kWhat.at(file.name));
    text +=
        "\nFormats in train.txt:\n\n"
        "- a story is a paragraph;\n"
        "- questions follow a passage: `<passage>\\nQuestion: ...\\nAnswer: ...`, and arithmetic has no "
        "passage;\n"
        "- instructions are `Instruction: ...\\nResponse: ...`.\n\n"
        "A base model is asked with `prompt` of questions.jsonl, which ends in `Answer:`; its first line is "
        "the answer. A "
        "fact document joined with a question in the same form asks for retrieval.\n\n"
        "Held-out facts (who has which thing, which two numbers are added, ...) are chosen by a hash of the "
        "fact, whatever "
        "the seed, and never occur in train.txt, sft.jsonl or preferences.jsonl.\n\n"
        "`chance` is the score of a guess among the answers that fit the form of the question.\n";
    open("README.md");
    add(text);
    close();
  }

  const Options& options_;
  std::string directory_;
  const ProgressCallback& progress_;
  uint64_t expected_ = 0;
  std::vector<std::unique_ptr<AtomicFile>> files_;
  DistinctCounter distinct_;
  Summary summary_;
};

}  // namespace

Summary write_corpus(const Options& options, const std::string& directory, const ProgressCallback& progress) {
  check(options);
  return Corpus(options, directory, progress).write();
}

}  // namespace qkv::tales
