// Jinja templates as Hugging Face transformers runs them: jinja2's ImmutableSandboxedEnvironment with
// trim_blocks, lstrip_blocks, break and continue, a plain JSON `tojson`, raise_exception, strftime_now and {%
// generation %}. See the Jinja documentation for the language. Refused: include, import, extends, block,
// random, lipsum.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/text/jinja/interpreter.h"

namespace qkv::jinja {

struct Rendering {
  std::string text;
  std::vector<Mark> marks;  // sorted by tag, then by position; those of one tag do not touch
};

class Template {
 public:
  // `name` opens error sentences. Throws Error with name and line for what is no template.
  Template(std::string_view source, std::string name);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // Called to make the render's variables; what it makes must not outlive the render.
  using Fill = std::function<void(Heap& heap, Interpreter::Variables& variables)>;
  // Throws Error; TemplateRefusal if the template calls raise_exception.
  Rendering render(const Fill& fill, std::chrono::system_clock::time_point now,
                   const Limits& limits = {}) const;

  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::unique_ptr<const Syntax> syntax_;
};

}  // namespace qkv::jinja

namespace qkv {

// The template itself refused its input, by raise_exception(message).
class TemplateRefusal : public Error {
 public:
  TemplateRefusal(const std::string& what, std::string message) : Error(what), message_(std::move(message)) {}
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

}  // namespace qkv
