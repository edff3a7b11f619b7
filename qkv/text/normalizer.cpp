// The steps, and how their JSON is read.
#include "qkv/text/normalizer.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/base64.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/charsmap.h"
#include "qkv/text/replace.h"
#include "qkv/text/unicode.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 16;

// Applies rewrite(out, code_point) to every code point.
template <typename Rewrite>
std::string map_code_points(std::string_view text, Rewrite&& rewrite) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (size_t i = 0; i < text.size();) {
    if (const auto c = next_code_point(text, i)) rewrite(out, *c);
  }
  return out;
}

std::string lower_case(std::string_view text) {
  return map_code_points(text, &append_lower_case);
}

// Without the characters for which `drops` holds.
std::string without(std::string_view text, bool (*drops)(char32_t)) {
  return map_code_points(text, [drops](std::string& out, char32_t c) {
    if (!drops(c)) append_utf8(out, c);
  });
}

std::string strip(std::string_view text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    const auto c = next_code_point(text, next);
    if (!c || !is_unicode_space(*c)) break;
    begin = next;
  }
  while (right && end > begin) {
    const size_t previous = previous_code_point(text, end);
    size_t position = previous;
    const auto c = next_code_point(text, position);
    if (!c || !is_unicode_space(*c)) break;
    end = previous;
  }
  return std::string(text.substr(begin, end - begin));
}

// SentencePiece's "nmt" rules without NFKC: no control characters, every white space a space.
std::string normalize_nmt(std::string_view text) {
  return map_code_points(text, [](std::string& out, char32_t c) {
    const bool control =
        (c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    if (control) return;
    const bool space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    append_utf8(out, space ? U' ' : c);
  });
}

// Devlin et al. 2018: drop control characters, single spaces, spaces around ideographs, accents, case.
struct BertRules {
  bool clean_text, handle_chinese_chars, strip_accents, lowercase;
};

std::string normalize_bert(std::string_view text, const BertRules& rules) {
  std::string out = map_code_points(text, [&](std::string& into, char32_t c) {
    if (rules.clean_text) {
      if (c == 0 || c == 0xFFFD || is_bert_control(c)) return;
      if (is_unicode_space(c)) {
        into += ' ';
        return;
      }
    }
    const bool apart = rules.handle_chinese_chars && is_bert_ideograph(c);
    if (apart) into += ' ';
    append_utf8(into, c);
    if (apart) into += ' ';
  });
  if (rules.strip_accents) out = without(normalize_unicode(out, NormalizationForm::nfd), &is_nonspacing_mark);
  if (rules.lowercase) out = lower_case(out);
  return out;
}

}  // namespace

Normalizer::Normalizer(const Json& json, const std::string& where) {
  if (!json.is_null()) add(json, where + ": normalizer", 0);
}

void Normalizer::add(const Json& json, const std::string& where, int depth) {
  require(depth < kMaximumDepth, "{}: nested deeper than {} levels", where, kMaximumDepth);
  const JsonView view(json, where);
  const std::string type = view.string("type");
  const auto add_form = [&](NormalizationForm form) {
    steps_.push_back(
        [form](std::string_view text, Regex::Scratch&) { return normalize_unicode(text, form); });
  };
  if (type != "NFC" && type != "Sequence") only_nfc_ = false;
  if (type == "NFC") return add_form(NormalizationForm::nfc);
  if (type == "NFD") return add_form(NormalizationForm::nfd);
  if (type == "NFKC") return add_form(NormalizationForm::nfkc);
  if (type == "NFKD") return add_form(NormalizationForm::nfkd);
  if (type == "StripAccents") {
    steps_.push_back([](std::string_view text, Regex::Scratch&) { return without(text, &is_mark); });
    return;
  }
  if (type == "Sequence") {
    const Json* list = view.find("normalizers");
    require(list && list->is_array(), "{}: Sequence: expected a list 'normalizers'", where);
    for (const auto& item : *list) add(item, where, depth + 1);
    return;
  }
  only_unicode_forms_ = false;
  if (type == "Lowercase") {
    steps_.push_back([](std::string_view text, Regex::Scratch&) { return lower_case(text); });
  } else if (type == "Prepend") {
    const std::string prefix = view.string("prepend");
    steps_.push_back([prefix](std::string_view text, Regex::Scratch&) {
      return text.empty() ? std::string() : prefix + std::string(text);
    });
  } else if (type == "Strip") {
    const bool left = view.boolean_or("strip_left", true), right = view.boolean_or("strip_right", true);
    steps_.push_back(
        [left, right](std::string_view text, Regex::Scratch&) { return strip(text, left, right); });
  } else if (type == "Replace") {
    steps_.push_back([rule = ReplaceRule(view, where)](std::string_view input, Regex::Scratch& scratch) {
      return rule.apply(input, scratch);
    });
  } else if (type == "Precompiled") {
    if (!view.has("precompiled_charsmap")) return;  // no rules
    const auto blob = decode_base64(view.string("precompiled_charsmap"));
    require(blob.has_value(), "{}: Precompiled: expected precompiled_charsmap in base64", where);
    const auto rules = std::make_shared<const Charsmap>(*blob, where);
    steps_.push_back([rules](std::string_view input, Regex::Scratch&) { return rules->rewrite(input); });
  } else if (type == "Nmt") {
    steps_.push_back([](std::string_view input, Regex::Scratch&) { return normalize_nmt(input); });
  } else if (type == "ByteLevel") {
    spells_bytes_ = true;
    steps_.push_back([](std::string_view input, Regex::Scratch&) { return spell_bytes(input); });
  } else if (type == "BertNormalizer") {
    BertRules rules{};
    rules.clean_text = view.boolean_or("clean_text", true);
    rules.handle_chinese_chars = view.boolean_or("handle_chinese_chars", true);
    rules.lowercase = view.boolean_or("lowercase", true);
    rules.strip_accents = view.boolean_or("strip_accents", rules.lowercase);
    steps_.push_back([rules](std::string_view text, Regex::Scratch&) { return normalize_bert(text, rules); });
  } else {
    fail(
        "{}: type: expected Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, "
        "StripAccents, "
        "Precompiled, Nmt, ByteLevel or BertNormalizer, found '{}'",
        where, type);
  }
}

bool Normalizer::leaves_unchanged(std::string_view text) const {
  if (steps_.empty()) return true;
  return only_unicode_forms_ && (is_ascii(text) || (only_nfc_ && is_certainly_nfc(text)));
}

std::string Normalizer::apply(std::string_view text, Regex::Scratch& scratch) const {
  std::string out(text);
  for (const auto& step : steps_) out = step(out, scratch);
  return out;
}

}  // namespace qkv
