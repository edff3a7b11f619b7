// The template language: what python3-jinja2 gave for templates of every feature
// (tests/interop/jinja_templates.py made and checks the expectations), the limits, and where bytes of the
// output came from.
#include <cstdlib>
#include <ctime>
#include <functional>

#include "qkv/text/jinja/template.h"
#include "tests/text/text_support.h"

namespace qkv {
namespace {

using jinja::Rendering;
using jinja::Template;

const std::chrono::system_clock::time_point kClock{std::chrono::seconds(1722001234)};

Rendering render(const std::string& source, const Json& variables = Json::object(),
                 const jinja::Limits& limits = {}, uint32_t tag = 0) {
  const Template made(source, "test.jinja");
  const auto fill = [&](jinja::Heap& heap, jinja::Interpreter::Variables& into) {
    for (const auto& [name, value] : variables.items()) into[name] = jinja::from_json(heap, value, tag, name);
  };
  return made.render(fill, kClock, limits);
}

std::string error(const std::string& source, const Json& variables = Json::object(),
                  const jinja::Limits& limits = {}) {
  return test::error_of([&] { render(source, variables, limits); });
}

TEST(Jinja, GivesWhatJinja2Gives) {
  setenv("TZ", "UTC", 1);
  tzset();
  for (const auto& test : load_json(test::golden("text/jinja_cases.json"))) {
    const std::string name = test["name"].get<std::string>() + ": " + test["template"].get<std::string>();
    try {
      const std::string text = render(test["template"].get<std::string>(), test["variables"]).text;
      ASSERT_TRUE(test.contains("text")) << name << "\n" << text;
      EXPECT_EQ(text, test["text"].get<std::string>()) << name;
    } catch (const TemplateRefusal& refusal) {
      ASSERT_TRUE(test.contains("refused")) << name << "\n" << refusal.what();
      EXPECT_EQ(refusal.message(), test["refused"].get<std::string>()) << name;
    } catch (const Error& error) {
      EXPECT_TRUE(test.contains("error")) << name << "\n" << error.what();
    }
  }
}

TEST(Jinja, ErrorsNameTheTemplateAndTheLine) {
  EXPECT_EQ(error("a\n{% if x %}\nb"), "[template] test.jinja, line 3: {% if %} has no {% endif %}");
  EXPECT_EQ(error("\n\n{{ x.y.z }}", {{"x", Json::object()}}),
            "[template] test.jinja, line 3: 'dict object' has no attribute 'y'");
  EXPECT_EQ(error("{{ nope() }}"), "[template] test.jinja, line 1: 'nope' is undefined");
  EXPECT_EQ(error("{{ 1 +\n 'a' }}"),
            "[template] test.jinja, line 1: unsupported operand type(s) for +: 'int' and 'str'");
  EXPECT_EQ(error("\n{{ raise_exception('Only ' ~ 2) }}"), "[template] test.jinja, line 2: Only 2");
  EXPECT_EQ(error("{% macro m() %}\n{{ 1 / 0 }}\n{% endmacro %}\n\n{{ m() }}"),
            "[template] test.jinja, line 2: division by zero");
  EXPECT_EQ(
      error("{% include 'other' %}"),
      "[template] test.jinja, line 1: {% include %} is refused: a chat template is one file of plain text");
  EXPECT_EQ(error("\xFF"), "[template] test.jinja: expected UTF-8, found an invalid byte at offset 0");
}

TEST(Jinja, RefusesWhatPythonWouldGiveButWeDoNot) {
  EXPECT_NE(error("{{ 9223372036854775807 + 1 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error("{{ 3037000500 * 3037000500 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error("{{ 10 ** 19 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error("{{ 9223372036854775808 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error("{{ -9223372036854775807 - 2 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error("{{ '9223372036854775808'|int }}").find("64 bits"), std::string::npos);
  EXPECT_EQ(render("{{ -9223372036854775807 - 1 }} {{ '-9223372036854775808'|int }}").text,
            "-9223372036854775808 -9223372036854775808");
  EXPECT_NE(error("{{ x }}", {{"x", 18446744073709551615u}}).find("below 2^63"), std::string::npos);
  EXPECT_NE(error("{{ [1]|random }}").find("refused"), std::string::npos);
  EXPECT_NE(error("{{ lipsum() }}").find("refused"), std::string::npos);
  EXPECT_NE(error("{{ 'a'.encode() }}").find("not supported"), std::string::npos);
}

TEST(Jinja, StopsAtItsLimits) {
  const auto stops = [](const std::string& source, const std::string& words,
                        const jinja::Limits& limits = {}) {
    const std::string found = error(source, Json::object(), limits);
    EXPECT_NE(found.find(words), std::string::npos) << source << "\n" << found;
  };
  jinja::Limits small;
  small.max_steps = 10'000;
  small.max_bytes = 1 << 20;
  small.max_output_bytes = 1000;
  // Time.
  stops("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps", small);
  stops("{{ range(99999)|list|length }}", "steps", small);
  stops("{% for a in range(200) %}{{ range(99)|sort|first }}{% endfor %}", "steps", small);
  // Memory.
  stops("{{ 'a' * 9999999999 }}", "memory");
  stops("{{ [1] * 9999999999 }}", "memory");
  stops("{{ '%9999999999d' % 1 }}", "memory", small);
  stops("{{ '%999999999d' % 1 }}", "memory", small);
  stops("{{ '{:999999999}'.format(1) }}", "memory", small);
  stops("{{ 'a'.center(999999999) }}", "memory", small);
  stops("{{ 'a'|indent(999999999, true) }}", "memory", small);
  stops("{{ [1]|tojson(indent=999999999) }}", "memory", small);
  stops("{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "memory", small);
  stops("{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "memory", small);
  stops(
      "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s|replace('a', n.s) %}{% endfor "
      "%}",
      "memory", small);
  // Output.
  stops("{% for a in range(2000) %}x{% endfor %}", "longer than 1000 bytes", small);
  // Depth.
  stops("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nest deeper");
  stops("{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}", "nest deeper");
  stops("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "nest deeper");
  stops("{% set n = namespace(s=[]) %}{% for i in range(9999) %}{% set n.s = [n.s] %}{% endfor %}",
        "nest deeper");
  stops(
      "{% set n = namespace(s=[1]) %}{% for i in range(9999) %}{% set n.s = n.s|map('string') %}{% endfor %}",
      "nest deeper");
  stops("{% set n = namespace() %}{% set n.self = n %}{{ n }}", "holds itself");
  stops("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}", "nest deeper");
  stops("{{ " + std::string(5000, '-') + "1 }}", "nest deeper");
  std::string sum = "1", blocks;
  for (int i = 0; i < 5000; ++i) sum += "+1";
  for (int i = 0; i < 5000; ++i) blocks += "{% if true %}";
  stops("{{ " + sum + " }}", "levels of operators");
  stops(blocks, "blocks nest deeper");
  stops("{{ range(100001) }}", "Range too big");
}

TEST(Jinja, CyclesEndWithTheRender) {
  // Under the address sanitizer, what is left behind is a leak.
  EXPECT_EQ(
      render(
          "{% set n = namespace() %}{% set n.n = n %}{% set n.l = [n] %}"
          "{% macro m() %}{% endmacro %}{% set n.m = m %}"
          "{% for i in range(3) %}{% set ignored = loop.changed(loop) %}{% set n.loop = loop %}{% endfor %}x")
          .text,
      "x");
  // A long chain must not be taken down by recursion.
  EXPECT_EQ(render("{% set n = namespace(head=none) %}{% for i in range(50000) %}"
                   "{% set link = namespace(next=n.head) %}{% set n.head = link %}{% endfor %}{% set n.head "
                   "= none %}x")
                .text,
            "x");
}

// The marked parts of a text, with their tags.
std::vector<std::pair<uint32_t, std::string>> parts(const Rendering& rendering) {
  std::vector<std::pair<uint32_t, std::string>> result;
  for (const auto& mark : rendering.marks)
    result.emplace_back(mark.tag, rendering.text.substr(mark.begin, mark.end - mark.begin));
  return result;
}

using Parts = std::vector<std::pair<uint32_t, std::string>>;

TEST(Jinja, KnowsWhichBytesCameFromItsInput) {
  const auto traced = [](const std::string& source, const Json& x) {
    return parts(render(source, {{"x", x}}, {}, 7));
  };
  EXPECT_EQ(traced("a{{ x }}b", "word"), (Parts{{7, "word"}}));
  EXPECT_EQ(traced("{{ 'a' + x + 'b' ~ x }}", "w"), (Parts{{7, "w"}, {7, "w"}}));
  EXPECT_EQ(traced("{{ x }}{{ x }}", "w"), (Parts{{7, "ww"}}));
  EXPECT_EQ(traced("{{ ('(' + x + ')')[1:4] }}", "éàü12"), (Parts{{7, "éàü"}}));
  EXPECT_EQ(traced("{{ ('<<' + x)[::-1] }}", "abc"), (Parts{{7, "cba"}}));
  EXPECT_EQ(traced("{{ (' ' + x + ' ')|trim }}", " w "), (Parts{{7, "w"}}));
  EXPECT_EQ(traced("{{ x.strip() }}", " w "), (Parts{{7, "w"}}));
  EXPECT_EQ(traced("{{ x.split('|')[1] }}", "a|b|c"), (Parts{{7, "b"}}));
  EXPECT_EQ(traced("{{ x|upper }}", "aß"), (Parts{{7, "ASS"}}));
  EXPECT_EQ(traced("{{ x.replace('b', '-') }}", "abc"), (Parts{{7, "a"}, {7, "c"}}));
  EXPECT_EQ(traced("{{ 'abc'.replace('b', x) }}", "-"), (Parts{{7, "-"}}));
  EXPECT_EQ(traced("{{ ['1', x]|join('+') }}", "2"), (Parts{{7, "2"}}));
  EXPECT_EQ(traced("{{ '%s: %s' % ('a', x) }}{{ '[{}]'.format(x) }}", "w"), (Parts{{7, "w"}, {7, "w"}}));
  EXPECT_EQ(traced("{{ {'k': x}|tojson }}", "a\"b"), (Parts{{7, "a\\\"b"}}));
  EXPECT_EQ(traced("{{ x|tojson }}", Json::parse(R"({"k": [1, "v"]})")), (Parts{{7, R"({"k": [1, "v"]})"}}));
  EXPECT_EQ(traced("{{ x.k }}|{{ x.k[0] }}", Json::parse(R"({"k": [15]})")), (Parts{{7, "[15]"}, {7, "15"}}));
  EXPECT_EQ(traced("{% set y %}a{{ x }}b{% endset %}{% macro m(z) %}[{{ z }}]{% endmacro %}{{ m(y) }}", "w"),
            (Parts{{7, "w"}}));
  EXPECT_EQ(traced("{% filter upper %}a{{ x }}{% endfilter %}", "w"), (Parts{{7, "W"}}));
  EXPECT_EQ(traced("{{ x|indent(2) }}", "a\nb"), (Parts{{7, "a"}, {7, "b"}}));
  EXPECT_EQ(traced("{{ x|length }}{{ x == 'w' }}", "w"), (Parts{}));
  EXPECT_EQ(traced("{{ x|e }}", "<"), (Parts{{7, "&lt;"}}));
}

TEST(Jinja, MarksGeneratedText) {
  const auto rendering = render(
      "a{% generation %}b{{ x }}{% endgeneration %}c{% set y %}{% generation %}d{% endgeneration %}"
      "{% endset %}{{ 'e' + y }}",
      {{"x", "w"}}, {}, 7);
  EXPECT_EQ(rendering.text, "abwced");
  EXPECT_EQ(parts(rendering), (Parts{{7, "w"}, {jinja::kGenerationTag, "bw"}, {jinja::kGenerationTag, "d"}}));
}

}  // namespace
}  // namespace qkv
