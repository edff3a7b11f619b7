"""Random small templates: expressions, filters, tests, methods and loops over values of every type."""
import random

VARIABLES = {
    "i": 7, "j": -3, "x": 2.5, "y": -0.125, "yes": True, "no": False, "nil": None, "s": "Hello, World", "w": "  Größe\tΣ 👍\n",
    "e": "", "l": [3, 1, 2], "names": ["b", "A", "c", "a"], "deep": [[1, [2]], {"k": "v"}], "d": {"b": 1, "a": [2], "c": None},
    "rows": [{"k": "x", "v": 1}, {"k": "Y", "v": 2}, {"k": "x"}], "h": "<a & 'b'>", "num": "12", "path": "a/b/c.txt",
}
NAMES = list(VARIABLES) + ["missing", "missing.attr", "d.a", "d.zz", "d['b']", "rows[0]", "rows[1].k", "l[0]", "deep[1].k"]
LITERALS = ["0", "1", "2", "-1", "10", "1.5", "0.1", "1e3", "''", "'a'", "'b c'", "'é'", "[]", "[1, 2]", "['a', 'b']", "{}",
            "{'a': 1}", "{'k': [1]}", "(1, 2)", "()", "true", "false", "none", "'%s'", "'{}'", "' x '"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
FILTERS = ["abs", "capitalize", "center(7)", "count", "default('q')", "d(1, true)", "dictsort", "e", "first", "float", "float(2)",
           "indent(2)", "indent(1, true)", "int", "int(5)", "join", "join(', ')", "last", "length", "list", "lower",
           "map('string')|list", "map(attribute='k')|list", "map('upper')|join", "max", "min", "pprint", "reject('none')|list",
           "rejectattr('v')|list", "replace('a', 'b')", "reverse|list", "round", "round(1)", "round(0, 'floor')", "safe",
           "select|list", "select('number')|list", "selectattr('v', 'defined')|list", "slice(2)|list", "batch(2)|list", "sort",
           "sort(reverse=true)", "sort(attribute='k')", "string", "striptags", "sum", "title", "tojson", "tojson(indent=1)",
           "tojson(sort_keys=true)", "trim", "trim('a')", "truncate(6)", "truncate(4, true, '.')", "unique|list", "upper",
           "urlencode", "wordcount", "wordwrap(5)", "xmlattr", "groupby('k')", "filesizeformat", "attr('x')", "forceescape",
           "batch(2, 0)|list", "min(case_sensitive=true)", "format(1)", "string|length", "list|length", "items|list"]
TESTS = ["defined", "undefined", "none", "number", "integer", "float", "string", "mapping", "sequence", "iterable", "callable",
         "boolean", "true", "false", "odd", "even", "divisibleby 2", "lower", "upper", "eq 1", "ne 'a'", "lt 3", "ge 1", "in [1, 'a']",
         "sameas none", "escaped", "not none", "not defined", "not string"]
METHODS = [".upper()", ".lower()", ".strip()", ".strip('a')", ".split()", ".split(',')", ".split(' ', 1)", ".rsplit('/', 1)",
           ".splitlines()", ".title()", ".capitalize()", ".replace('a', 'x')", ".startswith('a')", ".endswith('d')", ".find('o')",
           ".count('l')", ".join(names)", ".join(l)", ".isdigit()", ".isalpha()", ".items()|list", ".keys()|list", ".values()|list",
           ".get('a')", ".get('zz', 1)", ".index(1)", ".count(1)", ".copy()", ".format(1, 2)", ".zfill(4)", ".ljust(5, '.')",
           ".partition('/')", ".removeprefix('a')", ".swapcase()", ".isspace()", ".append(1)", ".k", ".a", "['k']", "[0]", "[-1]",
           "[1:]", "[:1]", "[::-1]", "[1:3]", "[-2:]", "[::2]", "[5]", "['a']"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def expression(self, depth):
        r = self.random
        kind = r.random()
        if depth <= 0 or kind < 0.18:
            return r.choice(NAMES) if r.random() < 0.6 else r.choice(LITERALS)
        a = self.expression(depth - 1)
        if kind < 0.43:
            op, b = r.choice(BINARY), self.expression(depth - 1)
            if op == "**":
                # jinja2 writes a negative constant without parentheses before Python's **, which binds tighter; and
                # a negative number to a fraction is complex.
                a = r.choice(["i", "x", "2", "l[0]", "s"])
            return f"({a}) {op} ({b})" if kind < 0.38 else f"{a} {op} {b}"
        if kind < 0.65:
            return f"({a})|{r.choice(FILTERS)}"
        if kind < 0.73:
            return f"({a}) is {r.choice(TESTS)}"
        if kind < 0.86:
            method = r.choice(METHODS)
            # jinja2 folds slices of constants into undefined values where it would fail on variables.
            return f"({r.choice(list(VARIABLES)) if ':' in method else a}){method}"
        if kind < 0.90:
            return f"({a}) if ({self.expression(depth - 1)}) else ({self.expression(depth - 1)})"
        if kind < 0.93:
            return f"not ({a})"
        if kind < 0.95:
            return f"-({a})"
        if kind < 0.98:
            return f"[{a}, {self.expression(depth - 1)}]"
        return "{'q': " + a + "}"

    def template(self):
        r = self.random
        e = self.expression(r.randint(1, 4))
        kind = r.random()
        if kind < 0.7:
            return "{{ " + e + " }}"
        if kind < 0.8:
            return "{% for q in " + e + " %}{{ loop.index }}{{ q }}{{ loop.last }};{% else %}-{% endfor %}"
        if kind < 0.87:
            return "{% set q = " + e + " %}{% if q %}[{{ q }}]{% else %}({{ q }}){% endif %}"
        if kind < 0.94:
            return "{% macro m(p, q='z') %}{{ p }}{{ q }}{% endmacro %}{{ m(" + e + ") }}{{ m(1, " + self.expression(1) + ")|upper }}"
        return "{% set ns = namespace(v=" + e + ") %}{% for q in l %}{% set ns.v = [ns.v, q] %}{% endfor %}{{ ns.v }}"


def cases(count, seed):
    generator = Generator(seed)
    for i in range(count):
        yield f"random {seed}.{i}", generator.template(), VARIABLES
