"""YAML from anybody: what it stands for, and that bombs, tags and the like are refused quickly, with their line."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest

from orchestr8d.core.yaml_text import MAX_SIZE, MOST_ALIASES, YamlError, read


@pytest.mark.parametrize(("text", "value"), [
    ("", None),
    ("\ufeffa: 1", {"a": 1}),
    ("{a: [1, -2, +3, 0x1F, 0o17, 010, 1.5, .5, 1e3, '1', \"2\"]}",
     {"a": [1, -2, 3, 31, 15, 10, 1.5, 0.5, 1000.0, "1", "2"]}),
    ("[true, False, null, ~, ]", [True, False, None, None]),
    # What YAML 1.1 makes something else of is what it looks like.
    ("[yes, No, on, off, 2026-03-01, 1:30, 1_000, '', -, +, ., 1.2.3, 5m, =]",
     ["yes", "No", "on", "off", "2026-03-01", "1:30", "1_000", "", "-", "+", ".", "1.2.3", "5m", "="]),
    ("on: 1\n1: 2\ntrue: 3\n'<<': 4", {"on": 1, "1": 2, "true": 3, "<<": 4}),
    ("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n&k e: *k", {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}] * 2, "e": "e"}),
    ("[!!str 5, ! 6, !!int 7, !!float 8, !!bool true, !!null '', !!seq [], !!map {}]",
     ["5", "6", 7, 8.0, True, None, [], {}]),
    ("a: |\n  x\n  y\nb: >\n  x\n  y\n", {"a": "x\ny\n", "b": "x y\n"}),
    ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
    ("[9223372036854775807, -9223372036854775807]", [2**63 - 1, 1 - 2**63]),
])  # fmt: skip
def test_what_it_stands_for(text: str, value: Any) -> None:
    found = read(text.encode())
    assert (found, repr(found)) == (value, repr(value))


DEEP = "a: &a [" + "x," * 9 + "]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{f'*{chr(97 + n)},' * 9}]\n" for n in range(10)
)  # fmt: skip


@pytest.mark.parametrize(("text", "wrong"), [
    ("a: 1\n--- \nb: 2", "line 2: more than one document"),
    ("a: 1\nb: {c: 1, c: 2}", "line 2: the key 'c' stands there twice"),
    ("a: !!python/object/apply:os.system [ls]", "line 1: the tag !!python/object/apply:os.system is not read"),
    ("- !!timestamp 2026-01-01", "line 1: the tag !!timestamp is not read"),
    ("!!set {a, b}", "line 1: the tag !!set is not read"),
    ("!x y", "line 1: the tag !x is not read"),
    ("!!binary aGk=: 1", "line 1: the tag !!binary is not read"),
    ("!!int x", "line 1: 'x' is no int"),
    ("a: &a [*a]", "line 1: the alias *a stands in what it stands for"),
    ("a: *b", "line 1: the alias *b stands for nothing"),
    ("a: &a {x: 1}\nb:\n  <<: *a", "line 3: merge keys (<<) are not read"),
    ("[a]: 1", "line 1: a key must be text"),
    ("? {a: 1}\n: 1", "line 1: a key must be text"),
    ("a: &a [1]\n*a : 2", "line 2: a key must be text"),
    ("x: .nan", "line 1: .nan is no number in JSON"),
    ("x: -.INF", "line 1: -.INF is no number in JSON"),
    ("x: 1e999", "line 1: 1e999 is too large a number"),
    ("x: 9223372036854775808", "line 1: a number of more than 64 bits"),
    ("x: 0x" + "f" * 1_000_000, "line 1: a number of more than 64 bits"),
    ("x: " + "9" * 1_000_000, "line 1: a number of more than 64 bits"),
    ("a: [1", "line 2: while parsing a flow sequence, did not find expected ',' or ']'"),
    ("a: b: c", "line 1: mapping values are not allowed in this context"),
    ('"\\ud800": 1', None),
    ("a: \0", None),
    ("[" * 1_000_000, "line 1: nested more than 50 levels deep"),
    ("{a: " * 200_000, "line 1: nested more than 50 levels deep"),
    ("- " * 400_000, "line 1: nested more than 50 levels deep"),
    ("? " * 400_000, None),
    ("&a " * 300_000, None),
    ("a: &a x\nb: [" + "*a, " * (MOST_ALIASES + 1) + "]", f"line 2: more than {MOST_ALIASES} aliases"),
    (DEEP, "line 6: more than 200,000 values, aliases written out"),
    ("a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 90 + "]", "line 2: more than 4 MB of text, aliases written out"),
    ("x" * (MAX_SIZE + 1), "larger than 1 MB"),
])  # fmt: skip
def test_what_is_refused(text: str, wrong: str | None) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(YamlError) as error:
        read(text.encode())
    assert wrong is None or str(error.value) == wrong
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_bytes_that_are_no_text() -> None:
    for body in (b"a: \xff", "a: 1".encode("utf-16"), b"\x80"):
        with pytest.raises(YamlError, match=r"not UTF-8|not YAML"):
            read(body)
