// Renders Jinja templates for tests/interop/jinja_templates.py: reads a JSON list of {"template",
// "variables"} or
// {"template", "messages", "options"} from a file and prints a JSON list of {"text"}, {"refused"} or
// {"error"}. The second argument is the clock, in seconds.
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "qkv/core/json.h"
#include "qkv/text/chat_template.h"

namespace {

using qkv::Json;

Json render(const Json& test, std::chrono::system_clock::time_point now) {
  Json result;
  try {
    const qkv::jinja::Template made(test["template"].get<std::string>(), "test");
    const auto fill = [&](qkv::jinja::Heap& heap, qkv::jinja::Interpreter::Variables& variables) {
      for (const auto& [name, value] : test["variables"].items())
        variables[name] = qkv::jinja::from_json(heap, value, 0, name);
    };
    result["text"] = made.render(fill, now).text;
  } catch (const qkv::TemplateRefusal& refusal) {
    result["refused"] = refusal.message();
  } catch (const qkv::Error& error) {
    result["error"] = error.what();
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: render_templates CASES.json SECONDS\n", stderr);
    return 2;
  }
  const std::chrono::system_clock::time_point now{std::chrono::seconds(std::atoll(argv[2]))};
  Json results = Json::array();
  for (const auto& test : qkv::load_json(argv[1])) results.push_back(render(test, now));
  std::fputs(qkv::dump_json(results).c_str(), stdout);
  return 0;
}
