"""jinja2 as Hugging Face transformers configures it for chat templates: the reference that ours is compared with."""
import copy
import datetime
import functools
import json
import warnings

import jinja2
import jinja2.ext
import jinja2.sandbox

warnings.simplefilter("ignore", SyntaxWarning)  # Python's, about the code that jinja2 makes
CLOCK = 1722001234  # 2024-07-26 13:40:34 UTC


class Generation(jinja2.ext.Extension):
    """{% generation %}: transformers records where its text is; the text itself is its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class Refusal(jinja2.exceptions.TemplateError):
    pass


def raise_exception(message):
    raise Refusal(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(pattern):
    return datetime.datetime.fromtimestamp(CLOCK).strftime(pattern)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


ENVIRONMENT = environment()


@functools.lru_cache(maxsize=64)
def compiled(template):
    return ENVIRONMENT.from_string(template)


def render(template, variables):
    """{"text": ...}, {"refused": message} or {"error": sentence}."""
    try:
        text = compiled(template).render(**copy.deepcopy(variables))  # filters may change their operand
        text.encode()  # lone surrogates are no text
        return {"text": text}
    except Refusal as refusal:
        return {"refused": str(refusal)}
    except RecursionError:
        return {"error": "RecursionError"}
    except Exception as error:  # whatever Python raises is an error of the template
        return {"error": f"{type(error).__name__}: {error}"}
