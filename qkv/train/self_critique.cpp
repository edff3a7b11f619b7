#include "qkv/train/self_critique.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/mapped_file.h"
#include "qkv/engine/sampler.h"
#include "qkv/tensor/ops.h"

namespace qkv {
namespace {

Json message(const char* role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

Json conversation_of(const Prompt& prompt) {
  return prompt.said.is_chat() ? *prompt.said.messages : Json::array({message("user", prompt.said.text)});
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

class Critic {
 public:
  Critic(const Bundle& bundle, const SelfCritiqueOptions& options) : bundle_(bundle), options_(options) {
    if (options_.principles.empty()) options_.principles = default_principles();
    require(bundle.tokenizer != nullptr, "{}: self-critique needs a tokenizer", bundle.path);
    options_.rollout.stop_ids = answer_ends(*bundle.tokenizer);
  }

  SelfCritiqueResult run(std::vector<Prompt> prompts, uint64_t stream) {
    stream_ = stream;
    SelfCritiqueResult result;
    if (options_.judge) {
      judge(prompts, result);
    } else {
      revise(prompts, result);
    }
    return result;
  }

 private:
  // `per_prompt` answers to each conversation.
  std::vector<std::string> say(const std::vector<Json>& conversations, int64_t per_prompt) {
    std::vector<std::vector<int32_t>> tokens;
    for (const Json& conversation : conversations) tokens.push_back(tokens_of(conversation));
    std::vector<const std::vector<int32_t>*> pointers;
    for (const auto& one : tokens) pointers.push_back(&one);
    std::vector<std::string> texts;
    const uint64_t stream = stream_ * 4 + calls_++ % 4;
    for (const Rollout& rollout :
         sample_rollouts(*bundle_.model, *bundle_.tokenizer, pointers, per_prompt, options_.rollout, stream))
      texts.push_back(trimmed(rollout.text));
    return texts;
  }

  std::vector<int32_t> tokens_of(const Json& conversation) const {
    std::vector<Prompt> one(1);
    one[0].where = "self-critique";
    one[0].said.messages = std::make_shared<const Json>(conversation);
    tokenize_prompts(one, *bundle_.tokenizer, true,
                     bundle_.model->info().max_positions - options_.rollout.max_new_tokens);
    return std::move(one[0].tokens);
  }

  const std::string& principle_of(size_t i) const {
    return options_
        .principles[(stream_ * static_cast<uint64_t>(options_.batch) + i) % options_.principles.size()];
  }

  static Json pair_of(const Prompt& prompt, const std::string& chosen, const std::string& rejected) {
    if (!prompt.said.is_chat())
      return {{"prompt", prompt.said.text}, {"chosen", chosen}, {"rejected", rejected}};
    return {{"prompt", *prompt.said.messages},
            {"chosen", Json::array({message("assistant", chosen)})},
            {"rejected", Json::array({message("assistant", rejected)})}};
  }

  void revise(const std::vector<Prompt>& prompts, SelfCritiqueResult& result) {
    std::vector<Json> conversations;
    for (const Prompt& prompt : prompts) conversations.push_back(conversation_of(prompt));
    const std::vector<std::string> first = say(conversations, 1);
    for (size_t i = 0; i < prompts.size(); ++i) {
      conversations[i].push_back(message("assistant", first[i].empty() ? "..." : first[i]));
      conversations[i].push_back(
          message("user", "Say what is wrong with your answer by this principle: " + principle_of(i)));
    }
    const std::vector<std::string> critiques = say(conversations, 1);
    for (size_t i = 0; i < prompts.size(); ++i) {
      conversations[i].push_back(message("assistant", critiques[i].empty() ? "..." : critiques[i]));
      conversations[i].push_back(message(
          "user", "Write the answer again so that it keeps to the principle. Write only the answer."));
    }
    const std::vector<std::string> second = say(conversations, 1);
    for (size_t i = 0; i < prompts.size(); ++i) {
      if (first[i].empty() || second[i].empty() || first[i] == second[i]) {
        ++result.alike;
        continue;
      }
      Json pair = pair_of(prompts[i], second[i], first[i]);
      pair["principle"] = principle_of(i);
      pair["critique"] = critiques[i];
      result.pairs.push_back(std::move(pair));
    }
  }

  void judge(const std::vector<Prompt>& prompts, SelfCritiqueResult& result) {
    std::vector<Json> conversations;
    for (const Prompt& prompt : prompts) conversations.push_back(conversation_of(prompt));
    const std::vector<std::string> answers = say(conversations, 2);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const std::string &a = answers[2 * i], &b = answers[2 * i + 1];
      if (a.empty() || b.empty() || a == b) {
        ++result.alike;
        continue;
      }
      const double margin =
          (log_odds(prompts[i], principle_of(i), a, b) - log_odds(prompts[i], principle_of(i), b, a)) / 2;
      if (std::abs(margin) < options_.min_margin || margin == 0) {
        ++result.undecided;
        continue;
      }
      Json pair = pair_of(prompts[i], margin > 0 ? a : b, margin > 0 ? b : a);
      pair["principle"] = principle_of(i);
      pair["margin"] = std::abs(margin);
      result.pairs.push_back(std::move(pair));
    }
  }

  // log p("A") - log p("B") of what the model says next when it is asked for the better answer.
  double log_odds(const Prompt& prompt, const std::string& principle, const std::string& a,
                  const std::string& b) const {
    const NoGrad off;
    const Json question = Json::array({message(
        "user",
        fmt::format(
            "{}\nAnswer A: {}\nAnswer B: {}\nWhich answer keeps better to this principle: {} Say A or B.",
            prompt.text, a, b, principle))});
    const std::vector<int32_t> tokens = tokens_of(question);
    Pass pass = Pass::whole({static_cast<int64_t>(tokens.size())});
    pass.compute_type = options_.rollout.compute_type;
    const Tensor hidden = bundle_.model->forward(tokens, pass);
    const std::vector<float> logits =
        bundle_.model->logits(ops::select_rows(hidden, {hidden.rows() - 1})).to_floats();
    return log_said(logits, "A") - log_said(logits, "B");
  }

  // Of the letter with or without a space before it, whichever way this vocabulary begins it.
  double log_said(const std::vector<float>& logits, const std::string& letter) const {
    std::vector<int32_t> ids;
    for (const std::string& text : {letter, " " + letter}) {
      const std::vector<int32_t> encoded =
          bundle_.tokenizer->encode(text, {.add_special = false, .parse_special = false});
      if (encoded.size() == 1 && std::find(ids.begin(), ids.end(), encoded[0]) == ids.end())
        ids.push_back(encoded[0]);
    }
    require(!ids.empty(), "self-critique: expected a vocabulary with a token for '{}', found none", letter);
    double total = 0;
    for (const int32_t id : ids) total += std::exp(static_cast<double>(log_probability(logits, id)));
    return std::log(std::max(total, 1e-300));
  }

  const Bundle& bundle_;
  SelfCritiqueOptions options_;
  uint64_t stream_ = 0, calls_ = 0;
};

}  // namespace

const std::vector<std::string>& default_principles() {
  static const std::vector<std::string> principles = {
      "The answer is correct and does not invent facts.",
      "The answer is helpful and answers what was asked.",
      "The answer is friendly and not rude.",
      "The answer harms nobody.",
      "The answer is short and does not repeat itself.",
  };
  return principles;
}

std::vector<std::string> read_principles(const std::string& path) {
  const auto file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  std::vector<std::string> principles;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = trimmed(std::string(text.substr(begin, end - begin)));
    begin = end + 1;
    if (!line.empty() && line[0] != '#') principles.push_back(line);
  }
  require(!principles.empty(), "{}: expected principles, one a line, found none", path);
  return principles;
}

SelfCritiqueResult self_critique(const Bundle& bundle, const std::vector<Prompt>& prompts,
                                 const SelfCritiqueOptions& options,
                                 const std::function<void(int64_t)>& progress) {
  SelfCritiqueResult result;
  Critic critic(bundle, options);
  const auto batch = static_cast<size_t>(options.batch);
  for (size_t begin = 0; begin < prompts.size(); begin += batch) {
    stop_if_interrupted();
    const size_t end = std::min(prompts.size(), begin + batch);
    SelfCritiqueResult part = critic.run({prompts.begin() + static_cast<std::ptrdiff_t>(begin),
                                          prompts.begin() + static_cast<std::ptrdiff_t>(end)},
                                         begin / batch);
    std::move(part.pairs.begin(), part.pairs.end(), std::back_inserter(result.pairs));
    result.alike += part.alike;
    result.undecided += part.undecided;
    if (progress) progress(static_cast<int64_t>(end));
  }
  return result;
}

}  // namespace qkv
