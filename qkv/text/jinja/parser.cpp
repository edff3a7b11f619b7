// Statements: what stands in {% ... %}, and the text and prints between.
#include "qkv/text/jinja/parser.h"

#include <algorithm>

#include "qkv/text/jinja/token_stream.h"

namespace qkv::jinja {
namespace {

constexpr int kMaximumNesting = 100;  // blocks within blocks

using StatementPtr = std::unique_ptr<Statement>;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  Syntax run() {
    Syntax syntax;
    syntax.body = body({}, "");
    return syntax;
  }

 private:
  // Statements up to a tag of one of `ends`, which becomes the current token.
  Body body(std::initializer_list<std::string_view> ends, std::string_view block) {
    if (++nesting_ > kMaximumNesting)
      tokens_.fail_here(fmt::format("blocks nest deeper than {} levels", kMaximumNesting));
    Body result;
    Statement* output = nullptr;  // text and prints that follow each other are one statement
    const auto print = [&](ExpressionPtr expression, int line) {
      if (output == nullptr) {
        result.push_back(make(StatementKind::output, line));
        output = result.back().get();
      }
      output->expressions.push_back(std::move(expression));
    };
    while (tokens_.current().kind != TokenKind::end) {
      const Token token = tokens_.take();
      if (token.kind == TokenKind::data) {
        auto text = std::make_unique<Expression>();
        text->line = token.line;
        text->constant = Value(std::make_shared<Text>(token.text));
        print(std::move(text), token.line);
      } else if (token.kind == TokenKind::variable_begin) {
        print(expressions_.tuple(), token.line);
        tokens_.expect(TokenKind::variable_end, "'}}'");
      } else {
        const auto is_end = [&](std::string_view end) { return tokens_.current().is_name(end); };
        if (std::any_of(ends.begin(), ends.end(), is_end)) {
          --nesting_;
          return result;
        }
        output = nullptr;
        result.push_back(statement());
        tokens_.expect(TokenKind::block_end, "'%}'");
      }
    }
    if (ends.size() > 0)
      tokens_.fail_here(fmt::format("{{% {} %}} has no {{% {} %}}", block, *(ends.end() - 1)));
    --nesting_;
    return result;
  }

  // The body of a block whose opening tag ends here, with its closing tag taken.
  Body block(std::string_view name) {
    open_body();
    const std::string end = "end" + std::string(name);
    Body result = body({end}, name);
    tokens_.take();
    return result;
  }

  void open_body() {
    tokens_.skip_operator(":");
    tokens_.expect(TokenKind::block_end, "'%}'");
  }

  static StatementPtr make(StatementKind kind, int line) {
    auto result = std::make_unique<Statement>();
    result->kind = kind;
    result->line = line;
    return result;
  }

  StatementPtr statement() {
    const Token token = tokens_.expect(TokenKind::name, "the name of a tag");
    const std::string& tag = token.text;
    if (tag == "for") return for_loop(token.line);
    if (tag == "if") return if_chain(token.line);
    if (tag == "set") return set(token.line);
    if (tag == "macro") return macro(token.line);
    if (tag == "call") return call_block(token.line);
    if (tag == "filter") return filter_block(token.line);
    if (tag == "with") return with(token.line);
    if (tag == "print") return print(token.line);
    if (tag == "break" || tag == "continue") return loop_control(tag == "break", token.line);
    if (tag == "generation") return generation(token.line);
    for (const std::string_view refused : {"include", "import", "from", "extends", "block", "autoescape"}) {
      if (tag == refused)
        tokens_.fail_here(
            fmt::format("{{% {} %}} is refused: a chat template is one file of plain text", refused));
    }
    tokens_.fail_here(fmt::format("there is no tag {{% {} %}} here", tag));
  }

  StatementPtr for_loop(int line) {
    auto result = make(StatementKind::for_loop, line);
    result->targets.push_back(expressions_.target(false, "in"));
    tokens_.expect_name("in");
    result->iterable = expressions_.tuple(false, "recursive");
    if (tokens_.skip_name("if")) result->test = expressions_.expression();
    result->recursive = tokens_.skip_name("recursive");
    open_body();
    ++loops_;
    result->body = body({"else", "endfor"}, "for");
    --loops_;
    if (tokens_.take().text == "else") {
      open_body();
      result->otherwise = body({"endfor"}, "for");
      tokens_.take();
    }
    return result;
  }

  StatementPtr if_chain(int line) {
    auto result = make(StatementKind::if_chain, line);
    bool more = true;
    while (more) {
      Branch branch;
      branch.condition = expressions_.tuple(false);
      open_body();
      branch.body = body({"elif", "else", "endif"}, "if");
      result->branches.push_back(std::move(branch));
      const std::string next = tokens_.take().text;
      more = next == "elif";
      if (next != "else") continue;
      open_body();
      Branch last;
      last.body = body({"endif"}, "if");
      result->branches.push_back(std::move(last));
      tokens_.take();
    }
    return result;
  }

  StatementPtr set(int line) {
    Target target = expressions_.target(true, "");
    if (tokens_.skip_operator("=")) {
      auto result = make(StatementKind::set, line);
      result->targets.push_back(std::move(target));
      result->expressions.push_back(expressions_.tuple());
      return result;
    }
    auto result = make(StatementKind::set_block, line);
    result->targets.push_back(std::move(target));
    result->expressions.push_back(expressions_.filters(nullptr, false));
    result->body = block("set");
    return result;
  }

  void signature(Statement& macro) {
    tokens_.expect_operator("(");
    while (!tokens_.current().is_operator(")")) {
      macro.parameters.push_back(tokens_.expect(TokenKind::name, "the name of a parameter").text);
      if (tokens_.skip_operator("=")) {
        macro.defaults.push_back(expressions_.expression());
      } else if (!macro.defaults.empty()) {
        tokens_.fail_here("a parameter without a default follows one with a default");
      }
      if (!tokens_.skip_operator(",")) break;
    }
    tokens_.expect_operator(")");
  }

  // Loops outside of a function are out of reach of its break and continue.
  Body function_body(std::string_view name) {
    const int loops = std::exchange(loops_, 0);
    Body result = block(name);
    loops_ = loops;
    return result;
  }

  StatementPtr macro(int line) {
    auto result = make(StatementKind::macro, line);
    result->name = tokens_.expect(TokenKind::name, "the name of the macro").text;
    signature(*result);
    result->body = function_body("macro");
    return result;
  }

  StatementPtr call_block(int line) {
    auto result = make(StatementKind::call_block, line);
    if (tokens_.current().is_operator("(")) signature(*result);
    ExpressionPtr call = expressions_.expression();
    if (call->kind != ExpressionKind::call) tokens_.fail_here("{% call %} expects the call of a macro");
    result->expressions.push_back(std::move(call));
    result->body = function_body("call");
    return result;
  }

  StatementPtr filter_block(int line) {
    auto result = make(StatementKind::filter_block, line);
    result->expressions.push_back(expressions_.filters(nullptr, true));
    result->body = block("filter");
    return result;
  }

  StatementPtr with(int line) {
    auto result = make(StatementKind::with, line);
    while (tokens_.current().kind != TokenKind::block_end) {
      if (!result->targets.empty()) tokens_.expect_operator(",");
      result->targets.push_back(expressions_.target(false, ""));
      tokens_.expect_operator("=");
      result->expressions.push_back(expressions_.expression());
    }
    result->body = block("with");
    return result;
  }

  StatementPtr print(int line) {
    auto result = make(StatementKind::output, line);
    while (tokens_.current().kind != TokenKind::block_end) {
      if (!result->expressions.empty()) tokens_.expect_operator(",");
      result->expressions.push_back(expressions_.expression());
    }
    return result;
  }

  StatementPtr loop_control(bool is_break, int line) {
    if (loops_ == 0)
      tokens_.fail_here(is_break ? "{% break %} is outside of a loop"
                                 : "{% continue %} is outside of a loop");
    return make(is_break ? StatementKind::break_loop : StatementKind::continue_loop, line);
  }

  StatementPtr generation(int line) {
    auto result = make(StatementKind::generation, line);
    result->body = function_body("generation");
    return result;
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

Syntax parse_template(std::string_view source) {
  Syntax syntax = Parser(source).run();
  resolve_names(syntax);
  return syntax;
}

}  // namespace qkv::jinja
