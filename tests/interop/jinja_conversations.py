"""Conversations that every chat template is rendered with."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a place; it's <fast> & \"free\".",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City and country, e.g. Zürich, Switzerland"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Unit"},
                "days": {"type": "integer", "description": "Days ahead", "default": 1, "minimum": 0, "maximum": 7},
                "detail": {"type": ["string", "null"], "description": "Level of detail"},
            },
            "required": ["location"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search documents.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to look for"},
                "filters": {
                    "type": "object",
                    "description": "Restrict results",
                    "properties": {
                        "tags": {"type": "array", "description": "Tags", "items": {"type": "string"}},
                        "year": {"type": "integer", "description": "Year of publication"},
                    },
                },
                "ids": {"type": "array", "description": "Ids", "items": {"type": "integer"}},
                "weights": {"type": "object", "description": "Weights", "additionalProperties": {"type": "number"}},
                "anything": {"oneOf": [{"type": "string"}, {"type": "number"}], "description": "Either"},
            },
            "required": ["query"],
        },
        "return": {"type": "string", "description": "Snippets"},
    },
}
TIME = {"type": "function", "function": {"name": "now", "description": "The time.",
                                         "parameters": {"type": "object", "properties": {}}}}
OLD_STYLE = {"name": "multiply", "description": "Multiply two numbers.",
             "parameter_definitions": {"a": {"type": "float", "description": "First", "required": True},
                                       "b": {"type": "float", "description": "Second"}}}

DOCUMENTS = [{"title": "Penguins", "text": "Emperor penguins are the tallest: 1.3 m."},
             {"title": "Ünïcode ✓", "text": "Line one\nline \"two\"", "year": 2021, "score": 0.5}]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments, identifier="abc123XYZ"):
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content, name="get_weather", identifier="abc123XYZ"):
    return {"role": "tool", "name": name, "tool_call_id": identifier, "content": content}


ARGUMENTS = {"location": "Zürich", "unit": "celsius", "days": 2, "ratio": 1.0, "flag": True, "none": None,
             "nested": {"a": [1, 2.5, "x"], "b": {}}}
TEXT_ARGUMENTS = '{"location": "Zürich", "unit": "celsius"}'

CODE = "Write a loop:\n\n```python\nfor i in range(3):\n\tprint(f\"{i!r} {{x}} {% raw %}\")\n```\n"
STRANGE = "  leading\ttab \u00a0nbsp \u200bzero-width 👩‍👩‍👧‍👦 e\u0301 \U0001f1e8\U0001f1ed 中文 العربية \u2028 end  \n\n"

CONVERSATIONS = {
    "single": [user("Hello!")],
    "system": [system("You are helpful."), user("Hi")],
    "multi_turn": [system("Be brief."), user("One"), assistant("1"), user("Two"), assistant("2"), user("Three?")],
    "no_system_multi_turn": [user("One"), assistant("1"), user("Two")],
    "ends_with_assistant": [user("One"), assistant("1")],
    "empty": [],
    "empty_content": [user(""), assistant(""), user(" ")],
    "only_system": [system("Alone")],
    "two_systems": [system("A"), system("B"), user("C")],
    "late_system": [user("A"), system("B"), user("C")],
    "two_users": [user("A"), user("B")],
    "assistant_first": [assistant("A"), user("B")],
    "unknown_role": [user("A"), {"role": "narrator", "content": "B"}],
    "unicode": [system("Ähm — “quotes” ‘single’ 🙂"), user(STRANGE), assistant("ß İ ﬁ 🎉"), user("😀" * 3)],
    "code": [user(CODE), assistant("```\n  ok\n```"), user("trailing newline\n")],
    "whitespace": [system("\n\n  padded system \t\n"), user("   x\n\n"), assistant("\n\ny  "), user("\tz\r\nw\r")],
    "markup": [user("<b>\"bold\" & 'it'</b>"), assistant("a < b > c && d"), user("{{ x }} {% if y %} {# z #} <|im_end|>")],
    "reasoning": [user("Why?"), assistant("<think>\nBecause of\nreasons.\n</think>\n\nThat is why."), user("Really?")],
    "reasoning_field": [user("Why?"), assistant("That is why.", reasoning_content="Because.\n"), user("Really?")],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "text", "text": "here"}]}],
    "none_content": [user("Hi"), assistant(None), user("Well?")],
    "missing_content": [user("Hi"), {"role": "assistant"}, user("Well?")],
    "numbers": [user("0"), assistant("1e10 0.1 -7"), user("-0.0")],
    "backslashes": [user("C:\\new\\table \\u0041 \\\\ \"\\n\""), assistant("\\"), user("'")],
    "long": [m for i in range(20) for m in (user(f"question {i} " * (i + 1)), assistant(f"answer {i}\n" * i))] + [user("end")],
}

# Name: (messages, tools)
WITH_TOOLS = {
    "tools_first": ([user("Weather in Zürich?")], [WEATHER]),
    "tools_system": ([system("Use tools."), user("Weather?")], [WEATHER, SEARCH, TIME]),
    "tool_call": ([user("Weather?"), assistant(None, tool_calls=[call("get_weather", ARGUMENTS)]),
                   result('{"temperature": 21.5}'), assistant("21.5 °C."), user("Thanks")], [WEATHER, SEARCH]),
    "tool_call_empty_content": ([user("Weather?"), assistant("", tool_calls=[call("get_weather", ARGUMENTS)]),
                                 result("21.5")], [WEATHER]),
    "tool_call_text": ([user("Weather?"), assistant("Let me see.", tool_calls=[call("get_weather", ARGUMENTS)]),
                        result("21.5"), assistant("Warm."), user("Ok")], [WEATHER]),
    "tool_call_text_arguments": ([user("Weather?"), assistant(None, tool_calls=[call("get_weather", TEXT_ARGUMENTS)]),
                                  result("21.5"), assistant("Warm."), user("Ok")], [WEATHER]),
    "tool_call_text_arguments_content": ([user("Weather?"),
                                          assistant("", tool_calls=[call("get_weather", TEXT_ARGUMENTS)]),
                                          result("21.5"), assistant("Warm."), user("Ok")], [WEATHER]),
    "two_calls": ([user("Both"), assistant(None, tool_calls=[call("get_weather", {"location": "A"}, "idAAAAAA1"),
                                                             call("search", {"query": "B", "ids": []}, "idBBBBBB2")]),
                   result("1", "get_weather", "idAAAAAA1"), result("2", "search", "idBBBBBB2"), user("And?")],
                  [WEATHER, SEARCH]),
    "two_calls_text_arguments": ([user("Both"), assistant(None, tool_calls=[call("get_weather", "{}", "idAAAAAA1"),
                                                                           call("search", "{\"q\": 1}", "idBBBBBB2")]),
                                  result("1", "get_weather", "idAAAAAA1"), result("2", "search", "idBBBBBB2")],
                                 [WEATHER, SEARCH]),
    "call_without_arguments": ([user("Time?"), assistant(None, tool_calls=[call("now", {})]), result("12:00", "now")], [TIME]),
    "call_without_id": ([user("Time?"), assistant(None, tool_calls=[{"type": "function",
                                                                     "function": {"name": "now", "arguments": {}}}]),
                         result("12:00", "now")], [TIME]),
    "result_as_object": ([user("Weather?"), assistant(None, tool_calls=[call("get_weather", ARGUMENTS)]),
                          result({"temperature": 21.5, "sky": ["blue", None]}), user("Ok")], [WEATHER]),
    "tools_without_call": ([user("Hi"), assistant("Hello"), user("Bye")], [SEARCH]),
    "old_style": ([user("2*3?")], [OLD_STYLE]),
    "no_tools_listed": ([user("Hi")], []),
    "code_interpreter": ([user("Run it")], [{"type": "code_interpreter"}, WEATHER]),
    "call_but_no_tools": ([user("Hi"), assistant(None, tool_calls=[call("now", {})]), result("12")], None),
}

# Sets of variables that templates of different models need.
VARIABLES = {
    "plain": {"bos_token": "<s>", "eos_token": "</s>"},
    "extras": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "date_string": "26 Jul 2024",
               "datetime": "2024-07-26", "functions": "[{\"name\": \"f\"}]", "builtin_tools": ["get_weather", "code_interpreter"],
               "tools_in_user_message": False, "enable_citations": True, "enable_thinking": False,
               "tool_name": "x", "documents": DOCUMENTS},
    "no_tokens": {},
}


def cases(templates):
    """(name, template source, variables) for every template, conversation and set of variables."""
    for name, source in templates.items():
        for extra_name, extra in VARIABLES.items():
            for prompt in (True, False):
                if extra_name != "plain" and not prompt:
                    continue
                base = {**extra, "add_generation_prompt": prompt}
                for title, messages in CONVERSATIONS.items():
                    yield f"{name} / {title} / {extra_name} / {prompt}", source, {**base, "messages": messages}
                for title, (messages, tools) in WITH_TOOLS.items():
                    variables = {**base, "messages": messages}
                    if tools is not None:
                        variables["tools"] = tools
                    yield f"{name} / {title} / {extra_name} / {prompt}", source, variables
