// One pass of a regular expression with a group per script over all characters gives the ranges.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "qkv/text/unicode_scripts.h"

#include <pcre2.h>

#include <algorithm>
#include <memory>
#include <string>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"

namespace qkv {
namespace {

struct ScriptRange {
  char32_t first, last;
  int script;
};

std::string all_characters() {
  std::string text;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c < 0xD800 || c > 0xDFFF) append_utf8(text, c);
  }
  return text;
}

char32_t character_at(std::string_view text, size_t at) {
  return next_code_point(text, at).value_or(0);
}

std::vector<ScriptRange> make_ranges() {
  std::string pattern;
  for (const auto name : unicode_script_names()) {
    pattern += pattern.empty() ? "(" : "|(";
    pattern += "\\p{sc:";
    pattern += name;
    pattern += "}+)";
  }
  int code = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> compiled(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &code, &offset,
                    nullptr),
      &pcre2_code_free);
  require(compiled != nullptr, "UnicodeScripts: PCRE2 does not know the script at byte {} of '{}'", offset,
          pattern);
  pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE);
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(compiled.get(), nullptr), &pcre2_match_data_free);
  const std::string text = all_characters();
  std::vector<ScriptRange> ranges;
  for (size_t from = 0; from < text.size();) {
    const int groups = pcre2_match(compiled.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                   from, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (groups < 2) break;
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    size_t last = bounds[1] - 1;
    while ((static_cast<uint8_t>(text[last]) & 0xC0) == 0x80) --last;
    ranges.push_back({character_at(text, bounds[0]), character_at(text, last), groups - 2});
    from = bounds[1];
  }
  return ranges;
}

}  // namespace

const std::vector<std::string_view>& unicode_script_names() {
  static const std::vector<std::string_view> names = {"Adlam",
                                                      "Ahom",
                                                      "AnatolianHieroglyphs",
                                                      "Arabic",
                                                      "Armenian",
                                                      "Avestan",
                                                      "Balinese",
                                                      "Bamum",
                                                      "BassaVah",
                                                      "Batak",
                                                      "Bengali",
                                                      "Bhaiksuki",
                                                      "Bopomofo",
                                                      "Brahmi",
                                                      "Braille",
                                                      "Buginese",
                                                      "Buhid",
                                                      "CanadianAboriginal",
                                                      "Carian",
                                                      "CaucasianAlbanian",
                                                      "Chakma",
                                                      "Cham",
                                                      "Cherokee",
                                                      "Common",
                                                      "Coptic",
                                                      "Cuneiform",
                                                      "Cypriot",
                                                      "Cyrillic",
                                                      "Deseret",
                                                      "Devanagari",
                                                      "Duployan",
                                                      "EgyptianHieroglyphs",
                                                      "Elbasan",
                                                      "Ethiopic",
                                                      "Georgian",
                                                      "Glagolitic",
                                                      "Gothic",
                                                      "Grantha",
                                                      "Greek",
                                                      "Gujarati",
                                                      "Gurmukhi",
                                                      "Han",
                                                      "Hangul",
                                                      "Hanunoo",
                                                      "Hatran",
                                                      "Hebrew",
                                                      "Hiragana",
                                                      "ImperialAramaic",
                                                      "Inherited",
                                                      "InscriptionalPahlavi",
                                                      "InscriptionalParthian",
                                                      "Javanese",
                                                      "Kaithi",
                                                      "Kannada",
                                                      "Katakana",
                                                      "KayahLi",
                                                      "Kharoshthi",
                                                      "Khmer",
                                                      "Khojki",
                                                      "Khudawadi",
                                                      "Lao",
                                                      "Latin",
                                                      "Lepcha",
                                                      "Limbu",
                                                      "LinearA",
                                                      "LinearB",
                                                      "Lisu",
                                                      "Lycian",
                                                      "Lydian",
                                                      "Mahajani",
                                                      "Malayalam",
                                                      "Mandaic",
                                                      "Manichaean",
                                                      "Marchen",
                                                      "MeeteiMayek",
                                                      "MendeKikakui",
                                                      "MeroiticCursive",
                                                      "MeroiticHieroglyphs",
                                                      "Miao",
                                                      "Modi",
                                                      "Mongolian",
                                                      "Mro",
                                                      "Multani",
                                                      "Myanmar",
                                                      "Nabataean",
                                                      "NewTaiLue",
                                                      "Newa",
                                                      "Nko",
                                                      "Ogham",
                                                      "OlChiki",
                                                      "OldHungarian",
                                                      "OldItalic",
                                                      "OldNorthArabian",
                                                      "OldPermic",
                                                      "OldPersian",
                                                      "OldSouthArabian",
                                                      "OldTurkic",
                                                      "Oriya",
                                                      "Osage",
                                                      "Osmanya",
                                                      "PahawhHmong",
                                                      "Palmyrene",
                                                      "PauCinHau",
                                                      "PhagsPa",
                                                      "Phoenician",
                                                      "PsalterPahlavi",
                                                      "Rejang",
                                                      "Runic",
                                                      "Samaritan",
                                                      "Saurashtra",
                                                      "Sharada",
                                                      "Shavian",
                                                      "Siddham",
                                                      "SignWriting",
                                                      "Sinhala",
                                                      "SoraSompeng",
                                                      "Sundanese",
                                                      "SylotiNagri",
                                                      "Syriac",
                                                      "Tagalog",
                                                      "Tagbanwa",
                                                      "TaiLe",
                                                      "TaiTham",
                                                      "TaiViet",
                                                      "Takri",
                                                      "Tamil",
                                                      "Tangut",
                                                      "Telugu",
                                                      "Thaana",
                                                      "Thai",
                                                      "Tibetan",
                                                      "Tifinagh",
                                                      "Tirhuta",
                                                      "Ugaritic",
                                                      "Vai",
                                                      "WarangCiti",
                                                      "Yi"};
  return names;
}

int unicode_script(char32_t c) {
  static const std::vector<ScriptRange> ranges = make_ranges();
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), c,
                       [](char32_t value, const ScriptRange& range) { return value < range.first; });
  if (after == ranges.begin()) return -1;
  const ScriptRange& range = *std::prev(after);
  return c <= range.last ? range.script : -1;
}

}  // namespace qkv
