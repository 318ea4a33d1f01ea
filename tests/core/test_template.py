"""Templates: what they give, what is said of wrong ones, and that none of them can hold anybody up."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestr8d.core.errors import MOST_FAULTS, Fault
from orchestr8d.core.template import (
    Limits,
    Seen,
    TemplateError,
    check,
    check_expression,
    evaluate,
    places,
    references,
    render,
)

NAMES: dict[str, Any] = {
    "x": "abc",
    "hook": {
        "n": 3, "none": None, "yes": True, "list": [3, 1, 2], "d": {"items": 5, "k": 1}, "go-on": "dash",
        "calls": [{"name": "Edit", "ms": 5}, {"name": "Bash", "ms": 7}], "big": "x" * 1_000_000, "text": "a b\nc",
        "path": "/srv/a.py",
    },
}  # fmt: skip


@pytest.mark.parametrize(("template", "expected"), [
    ("plain", "plain"),
    ("${#x} {# no comment #} }}", "${#x} {# no comment #} }}"),
    ("{{ hook.n }}", 3),
    ("{{ hook.none }}", None),
    ("{{ hook.list }}", [3, 1, 2]),
    ("{{ hook.d }}", {"items": 5, "k": 1}),
    (" {{ hook.n }}", " 3"),
    ("{{ hook.n }}{{ hook.n }}", "33"),
    ("{{ hook.none }},{{ hook.yes }},{{ hook.list }},{{ hook.d }}", 'null,true,[3,1,2],{"items":5,"k":1}'),
    ("{{ '{{ x }}' }}", "{{ x }}"),
    ("{{ hook.d.items }}", 5),
    ("{{ hook['go-on'] }}", "dash"),
    ("{{ hook.calls[1].name }}{{ hook.calls[-1]['ms'] }}", "Bash7"),
    ("{% if hook.n > 2 and x in ('abc', 'd') %}a{% elif x %}b{% else %}c{% endif %}", "a"),
    ("{% if not hook.yes %}a{% elif hook.n == 3 %}b{% endif %}", "b"),
    ("{% for c in hook.calls if c.ms > 5 %}{{ loop.index }}{{ c.name }}{% else %}none{% endfor %}", "1Bash"),
    ("{% for c in [] %}x{% else %}none{% endfor %}", "none"),
    ("{% for k, v in hook.d|items %}{{ k }}={{ v }}{{ '' if loop.last else ',' }}{% endfor %}", "items=5,k=1"),
    ("{% set y = x ~ 1 %}{% for i in [1, 2] %}{% set y = i %}{% endfor %}{{ y }}", "abc1"),
    ("{{ hook.nope|default('y') }}{{ hook.n|d(1) }}{{ none|default(2, true) }}", "y32"),
    ("{{ hook.nope is defined }}", False),
    ("{{ hook.n * 2 + 1 - 8 // 3 % 2 }}", 7),
    ("{{ 7 / 2 }}", 3.5),
    ("{{ hook.list|sort|join('-') }}{{ hook.list|sort(reverse=true)|first }}", "1-2-33"),
    ("{{ hook.calls|map(attribute='name')|join(', ') }}", "Edit, Bash"),
    ("{{ hook.calls|selectattr('ms', 'gt', 5)|list|length }}{{ hook.calls|sum(attribute='ms') }}", "112"),
    ("{{ hook.list|map('string') }}", ["3", "1", "2"]),
    ("{{ hook.list|min }}{{ hook.list|max }}{{ [1, 1, 2]|unique|length }}", "132"),
    ("{{ hook.text.split() }}", ["a", "b", "c"]),
    ("{{ hook.text|indent(2) }}", "a b\n  c"),
    ("{{ hook.path.endswith('.py') and hook.path.startswith('/') }}", True),
    ("{{ hook.path.removeprefix('/srv/') }}", "a.py"),
    ("{{ hook.d.get('k') }}{{ hook.d.get('z', 'z') }}", "1z"),
    ("{{ x|replace('', '-')|upper }}", "-A-B-C-"),
    ("{{ hook.big|truncate(5) }}{{ hook.big[:2] }}{{ hook.big|length }}", "xx...xx1000000"),
    ("{{ '5'|int + 'x'|int(1) }}", 6),
    ("{{ {'a': [1, x]}|tojson }}", '{"a":[1,"abc"]}'),
    ("{{ 2.567|round(1) }}{{ -2|abs }}", "2.62"),
    ("{{ x if hook.yes else y }}", "abc"),
    ("{%- raw %}{{ x }}{% endraw -%} ", "{{ x }}"),
    ("a\n{{ x }}\n", "a\nabc\n"),
])  # fmt: skip
def test_what_comes_out(template: str, expected: object) -> None:
    found = render(template, NAMES)
    assert (found, type(found)) == (expected, type(expected))
    assert check(template, NAMES) == [] or "{{ x if" in template


@pytest.mark.parametrize(("expression", "expected"), [
    ("x", "abc"), ("hook.n > 2 and not hook.none", True), ("{'a': {'b': [1]}}.a.b", [1]), ("hook.list", [3, 1, 2]),
    ("hook.nope is defined", False), ("('1d'|seconds) + ('90s'|seconds) + (5|seconds) + (0.5|seconds)", 86495.5),
    ("'2h'|seconds", 7200),
])  # fmt: skip
def test_what_an_expression_comes_to(expression: str, expected: object) -> None:
    assert check_expression(expression, "when", NAMES) == []
    found = evaluate(expression, NAMES)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(("expression", "wrong"), [
    ("", "unexpected 'end of template'"), ("x y", "expected the end of the expression, found 'y'"),
    ("x }} {{ y", "an expression stands without braces: params.x, not {{ params.x }}"),
    ("x }}", "expected the end of the expression, found '}}'"), ("x %}", "unexpected '}'"),
    ("nope", "'nope' is not known"), ("x.__class__", "x.__class__ is not available in templates"),
    ("x" + "+x" * 6000, "more than 10,000 words and signs"), ("(" * 5000, "nested too deep"),
    ("hook.nope", "hook.nope is not there"), ("'x'|seconds", None), ("true|seconds", None), ("-1|seconds", None),
    ("[x] * 10 ** 9", "pow is not available in templates"), ("['\\ud800']", None),
])  # fmt: skip
def test_wrong_expressions(expression: str, wrong: str | None) -> None:
    told = [fault.message for fault in check_expression(expression, "when", NAMES)]
    with pytest.raises(TemplateError) as error:
        evaluate(expression, NAMES)
    assert wrong is None or any(wrong in one for one in (*told, str(error.value)))


def test_what_a_value_names_is_told_without_evaluating_it() -> None:
    value = {
        "a": ["{{ tasks.plan.output.topics[0].x }}{{ tasks['go-ahead'].result|upper }}", 1],
        "b": "{% for t in signals.go.list if t.x %}{{ t.y }}{{ params.get('k').z }}{% endfor %}",
        "c": "{{ tasks[params.k].result ~ tasks.items.result.split('x') }}", "{{ tasks.key }}": "{{ item }}",
    }  # fmt: skip
    found = references(value, ["tasks.other is defined and signals['a.b']", "workflow.failed[tasks.deep.output]"])
    assert found.tasks == {"plan", "go-ahead", "items", "other", "deep"} and found.signals == {"go", "a.b"}
    assert found.names == {"tasks", "signals", "params", "item", "t", "workflow"}
    seen = Seen()
    names = ("tasks", "params")
    assert check("{% set tasks = params.x %}{{ tasks.a-b-c.d }}", names, seen=seen) == [
        Fault("", "'b' is not known (a name with a dash is written tasks['a-b'])"), Fault("", "'c' is not known"),
        Fault("", "'tasks' cannot be set"),
    ]  # fmt: skip
    found = {(use.name, use.keys) for use in seen.uses}
    assert found == {("params", ("x",)), ("tasks", ("a",)), ("b", ()), ("c", ("d",))}
    assert seen.words > 15


def test_only_strings_of_a_value_are_rendered_and_none_twice() -> None:
    value = {"{{ x }}": ["{{ hook.n }}", 1, None, {"b": "-{{ x }}"}], "c": "{{ y }}"}
    assert render(value, NAMES | {"y": "{{ x }}"}) == {"{{ x }}": [3, 1, None, {"b": "-abc"}], "c": "{{ x }}"}
    assert places(value) == {"{{ x }}[0]", "{{ x }}[3].b", "c"}


@pytest.mark.parametrize(("template", "message"), [
    ("{{ hok }}", "'hok' is not known (did you mean 'hook'?)"),
    ("{{ hook.lst }}", "hook.lst is not there (did you mean 'list'?)"),
    ("{{ hook.n.a }}", "hook.n.a is not there: hook.n is a number"),
    ("{{ hook.list[9] }}", "hook.list[9] is past the end"),
    ("{{ x + 1 }}", "+ does not join a text and a number: ~ does"),
    ("{{ 1 / 0 }}", "division by zero"),
    ("{{ x if false }}", "this `if` has no `else`"),
    ("{{ x", "unexpected end of template, expected 'end of print statement'."),
    ("a\n{% if %}", "line 2: Expected an expression, got 'end of statement block'"),
    ("{{ x|uper }}", "there is no filter 'uper' (did you mean 'upper'?)"),
    ("{{ hook.calls|sort }}", "texts and numbers can be compared, not a mapping (attribute='…' names a field)"),
    ("{{ []|first }}", "the first or last of an empty list"),
    ("{{ '\\ud800' }}", "half a character (a lone surrogate) is no text"),
    ("{{ hook.d.items() }}", "hook.d.items cannot be called"),
])  # fmt: skip
def test_what_is_said_of_a_wrong_one(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render({"command": ["a", template]}, NAMES)
    assert caught.value.path == "command[1]"
    assert caught.value.message == message
    assert str(caught.value) == f"command[1]: {message}"


@pytest.mark.parametrize(("template", "messages"), [
    ("{{ hok.a }}{{ x|uper }}", ["'hok' is not known (did you mean 'hook'?)",
                                 "there is no filter 'uper' (did you mean 'upper'?)"]),
    ("{{ hook.go-on }}", ["'on' is not known (a name with a dash is written hook['go-on'])"]),
    ("{{ range(3) }}", ["range(): functions are not available in templates"]),
    ("{% macro m() %}{% endmacro %}", ["macro is not available in templates"]),
    ("{% include 'a' %}", ["include is not available in templates"]),
    ("{% import 'a' as b %}", ["import is not available in templates"]),
    ("{{ 2 ** 3 }}", ["pow is not available in templates"]),
    ("{{ x.format(1) }}", ["there is no method 'format'"]),
    ("{{ x|replace(1) }}{{ x|trim(a=1) }}", ["replace does not take these arguments",
                                             "trim does not take these arguments"]),
    ("{{ x is defned }}", ["there is no test 'defned' (did you mean 'defined'?)"]),
    ("{{ x|join(*x) }}", ["arguments cannot be given with a star"]),
    ("{% for a in x recursive %}{% endfor %}", ["a loop cannot be recursive"]),
    ("{% for a in hook.list %}{{ a }}{{ loop.index }}{% set b = a %}{{ b }}{% endfor %}", []),
])  # fmt: skip
def test_what_is_found_before(template: str, messages: list[str]) -> None:
    assert check({"a": [template]}, ("hook", "x")) == [Fault("a[0]", message) for message in messages]


DOUBLED = "{% set a = [1, 1, 1, 1, 1, 1, 1, 1] %}" + "{% set a = [a, a, a, a, a, a, a, a] %}" * 30
BOMBS = [
    "{% for a in range(10**9) %}{% endfor %}",
    "{% for a in l %}{% for b in l %}{% for c in l %}{{ a }}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}",
    '{{ "a" * 10**9 }}', "{{ [1] * 10**9 }}", "{{ l * 1000 }}", "{{ 10**10**10 }}",
    "{{ " + " * ".join(["99999999999"] * 50) + " }}", "{{ 1e308 * 10 }}",
    '{{ "%999999999d" % 1 }}', '{{ "a".ljust(10**9) }}', '{{ "{:>999999999}".format(1) }}',
    "{{ x|center(1000000000) }}", "{{ lipsum(n=1000000) }}", "{{ x|indent(1000000000) }}",
    "{{ x|batch(3) }}", "{{ x|wordwrap(1) }}", "{{ dict(a=1) }}", "{{ namespace() }}", "{{ cycler(1) }}",
    "{{ ''.__class__.__mro__ }}", "{{ ''['__class__'] }}", "{{ x|attr('__class__') }}", "{{ l.__class__ }}",
    "{{ x|map('attr', '__class__') }}", "{{ self }}", "{{ loop }}", "{{ x.join.__self__ }}",
    "{{ s|replace('a', s) }}", "{{ s|replace('', s) }}", "{{ l|join(s) }}", "{{ s ~ s ~ s ~ s }}", "{{ s + s }}",
    "{% for a in l %}{{ s }}{% endfor %}", "{% for a in l %}{% if s|replace('aa', 'b') %}{% endif %}{% endfor %}",
    "{% for a in l %}{% for b in l %}{% if s in t %}{% endif %}{% endfor %}{% endfor %}",
    "{% for a in l %}{% for b in l %}{% if t == u %}{% endif %}{% endfor %}{% endfor %}",
    "{% for a in l %}{% for b in l %}{% if x.foo|d or y.foo|d %}{% endif %}{% endfor %}{% endfor %}",
    "{% for a in l %}{% for b in l %}{% if s.split('a') %}{% endif %}{% endfor %}{% endfor %}",
    "{{ t|tojson }}", "{{ t }}", "{{ [t, t] }}", "{{ {'a': t}|tojson }}", "{{ l|map('replace', '', s) }}",
    DOUBLED + "{{ a }}", DOUBLED + DOUBLED.replace("a", "b") + "{{ a == b }}", DOUBLED + "{{ a|tojson(indent=4) }}",
    "{{ 5|round(-1000000000) }}", "{{ 5.5|round(1000000000) }}", "{{ " + "9" * 5000 + " }}", "{{ s|int }}x{{ t }}",
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "{{ " + "-" * 5000 + "1 }}", "{{ 1" + "+1" * 4000 + " }}",
    "{{ " + "[" * 500 + "]" * 500 + " }}", "{{x" + ".a" * 4000 + " }}", "{{ x" + "|upper" * 4000 + " }}",
    "{% if x %}" * 400 + "{% endif %}" * 400, "{{1}}" * 60_000, "{{ '" + "\\" * 5001 + " }}", "{%" * 100_000,
    "{{ " + "1_" * 100_000 + " }}", "{% raw %}" * 10_000, "{{" + " " * 200_000, "{{ l" + "[1:]" * 2000 + " }}",
    "{{ m|selectattr(dots, 'undefined')|list }}", "{{ m|map(attribute=dots)|list }}", "{{ m|sum(dots) }}",
    "{{ nl|indent(0)|length }}" * 90, "".join(f"{{%set a{n}bcdef=x{n}bcdef%}}" for n in range(1300)),
    "{{ same|map('int')|unique|length }}{{ none_such }}",
]  # fmt: skip
# Their hashes are equal, and a template can make numbers of them.
_SAME = [str((2**61 - 1) * (k + 2**60)) for k in range(9000)]


@pytest.mark.parametrize("template", BOMBS, ids=range(len(BOMBS)))
def test_no_template_holds_anybody_up(template: str) -> None:
    names = {"l": list(range(1000)), "s": "a" * 250_000, "t": "a" * 270_000 + "b", "u": "a" * 270_000 + "c",
             "x": "abc", "y": {f"foo{n}": n for n in range(1000)}, "m": [{}] * 10_000, "dots": "." * 200_000,
             "nl": "\n" * 250_000, "same": _SAME}  # fmt: skip
    begun = time.process_time()
    check(template, names)
    with pytest.raises(TemplateError):
        render(template, names)
    assert time.process_time() - begun < 0.5


def test_of_a_long_text_what_is_taken_counts() -> None:
    names = {"x": "ab" * 8_000_000}
    assert render("{{ x[:3] }}{{ x[-2:] }}{{ x[4:2:-1] }}{{ x[::4000000] }}", names) == "abaababaaaa"
    with pytest.raises(TemplateError, match="a text of more than"):
        render("{{ x[1:]|length }}", names)


def test_so_many_faults_are_enough() -> None:
    assert MOST_FAULTS < len(check(["{{ a.b }}{{ c }}"] * 500, ())) <= 2 * MOST_FAULTS


def test_the_limits_are_for_the_whole_value() -> None:
    part = "{{ s }}."
    names = {"s": "a" * 100_000}
    assert len(render([part, part], names)) == 2
    with pytest.raises(TemplateError, match=r"\[2\]: a text of more than 262,144 bytes"):
        render([part, part, part], names)
    with pytest.raises(TemplateError, match="more than 10 steps"):
        render("{{ 1 + 1 + 1 }}" * 5, {}, Limits(steps=10))


WORDS = [
    "{{ ", " }}", "{% ", " %}", "for a in ", "endfor", "if ", "else", "endif", "set a = ", "x", "hook", ".d", ".list",
    "[0]", "[1:", "]", "(", ")", "|length", "|join(", "|sort", "|tojson", "|default(", "|map(", "|first", "'", '"a"',
    "1", "9e99", " + ", " * ", " ~ ", " ** ", " in ", " is ", "not ", "defined", "none", ",", ":", "{", "}",
    ".items()", ".split(", " and ", " == ", " < ", "=", "-", "\n", "\\", "é", "\ud83d", "{#", "loop", ".__class__",
    "raw", "endraw", "macro", "*", "%",
]  # fmt: skip


@settings(max_examples=300, deadline=1000)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join) | st.text(max_size=40).map(lambda t: f"{{{{{t}}}}}"))
def test_a_random_template_fails_as_a_template_only(template: str) -> None:
    check(template, NAMES)
    try:
        found = render(template, NAMES)
    except TemplateError as error:
        assert error.message
    else:
        if "\ud83d" not in template:
            msgspec.json.encode(found)
