"""Definitions of agents as they are found in the wild: what can be read counts, what cannot is named."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestr8d.core.frontmatter import MAX_SIZE, read


def head(*lines: str, body: str = "Body.") -> bytes:
    return "\n".join(["---", *lines, "---", body]).encode()


def test_a_plain_definition() -> None:
    said = read(head("name: reviewer", "description: Reviews", "model: opus", "tools: Read, Grep", body="\nLook.\n"))
    assert (said.name, said.description, said.model, said.tools) == ("reviewer", "Reviews", "opus", ["Read", "Grep"])
    assert (said.body, said.ignored, said.id) == ("Look.", [], None)


def test_no_front_matter_at_all() -> None:
    said = read(b"# Reviewer\n\nYou review\ncode.\n\nMore.\n")
    assert (said.name, said.tools, said.description) == (None, None, "You review code.")
    assert said.body == "# Reviewer\n\nYou review\ncode.\n\nMore."
    assert said.ignored == []


@pytest.mark.parametrize(
    ("lines", "tools"),
    [
        (["tools: Read, Grep"], ["Read", "Grep"]),
        (["tools: Read"], ["Read"]),
        (["tools: Read Grep"], ["Read", "Grep"]),
        (["tools: [Read, Grep]"], ["Read", "Grep"]),
        (["tools:", "  - Read", "  - Grep"], ["Read", "Grep"]),
        (["tools:", "- Read", "- Grep"], ["Read", "Grep"]),
        (["tools: Bash(git add:*), Bash(git log, -n), Read"], ["Bash(git add:*)", "Bash(git log, -n)", "Read"]),
        (["tools: [Read] [Grep]"], ["Read", "Grep"]),
        (["Tools: Read, Read"], ["Read"]),
        (["tools: []"], []),
        (["tools: *"], None),
        (['tools: "*"'], None),
        (["tools: ['*']"], None),
        (["tools:"], None),
        (["tools: null"], None),
    ],
)
def test_tools_in_all_their_forms(lines: list[str], tools: list[str] | None) -> None:
    said = read(head("name: a", *lines))
    assert said.tools == tools
    assert (said.name, said.ignored) == ("a", [])


def test_tools_that_are_none() -> None:
    said = read(head("tools: {Read: true}"))
    assert (said.tools, said.ignored) == (None, ["tools: expected a list, found a mapping"])
    said = read(head("tools:", "- Read", "- {Bash: git}"))
    assert said.tools == ["Read"]
    assert said.ignored == ["tools: expected names of tools, found a mapping in the list"]


def test_a_missing_description_is_the_first_paragraph() -> None:
    assert read(head("name: a", body="# Title\n\nFirst\nlines.\n\nSecond.")).description == "First lines."
    assert read(head("name: a", body="# Title\nDirectly below.")).description == "Directly below."
    assert read(head("name: a", body="# Only a title")).description == "Only a title"
    assert read(head("description:", body="word " * 100)).description == ("word " * 100)[:199].rstrip() + "…"


def test_invalid_yaml_costs_only_the_keys_that_are_invalid() -> None:
    said = read(head("name: a", "argument-hint: [a] [b]", "description: text with: colons", "tools:", "  - Read"))
    assert (said.name, said.description, said.tools) == ("a", "text with: colons", ["Read"])
    assert said.ignored == ["argument-hint: not valid YAML"]


def test_a_description_over_lines_that_are_no_yaml() -> None:
    said = read(head("description: Use it: when", "  it rains", "<example>", "# a comment", "model: opus"))
    assert (said.description, said.model, said.ignored) == ("Use it: when it rains <example>", "opus", [])
    assert read(head("description: 'it's: so'")).description == "it's: so"
    assert read(head("description: |", "  one", "  two", "hint: [a] [b]")).description == "one\ntwo"


@pytest.mark.parametrize(
    ("closing", "body"), [("--- # Title", "# Title\nBody."), ("---Text", "Text\nBody."), ("-----", "\nBody.")]
)
def test_text_after_the_closing_dashes_is_body(closing: str, body: str) -> None:
    said = read(f"---\nname: a\n{closing}\nBody.".encode())
    assert (said.name, said.body, said.ignored) == ("a", body.strip("\n"), [])


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends_and_a_byte_order_mark(end: str) -> None:
    said = read(("\ufeff" + end.join(["---", "name: a", "tools: Read", "---", "One", "two"])).encode())
    assert (said.name, said.tools, said.body, said.ignored) == ("a", ["Read"], "One\ntwo", [])


def test_other_keys_are_passed_over_unless_they_would_matter() -> None:
    assert read(head("color: blue", "version: 1.0", "categories: [a]")).ignored == []
    assert read(head("disallowedTools: Bash")).ignored == ["disallowedTools: not used; the options of the task say it"]


@pytest.mark.parametrize(("written", "name"), [("12", "12"), ("true", "true"), ("1.50", "1.50"), ("2026-01-01",) * 2])
def test_scalars_are_text(written: str, name: str) -> None:
    assert read(head(f"name: {written}")).name == name


@pytest.mark.parametrize("value", ["{a: {b: c}}", "[a, b]"])
def test_nothing_nested_is_taken_for_text(value: str) -> None:
    said = read(head(f"name: {value}", "description: {a: b}", "id: x"))
    assert (said.name, said.id, said.description) == (None, "x", "Body.")
    kind = "mapping" if value[0] == "{" else "list"
    expected = [f"name: expected text, found a {kind}", "description: expected text, found a mapping"]
    assert said.ignored == expected


def test_names_fit_on_a_command_line() -> None:
    said = read(head(f"name: {'x' * 201}", "model: inherit"))
    assert (said.name, said.model) == (None, None)
    assert said.ignored == ["name: expected at most 200 printable characters"]
    assert read(b"---\nname: a\x1b[31mb\n---\nx").name is None
    assert read(head("name: >", "  code", "  reviewer")).name == "code reviewer"


def test_front_matter_that_is_never_closed() -> None:
    said = read(b"---\nname: a\ntools:\n  - Read\n\n# Title\n\nDo it: now\n")
    assert (said.name, said.tools, said.body) == ("a", ["Read"], "# Title\n\nDo it: now")
    assert said.ignored == ["the front matter is not closed by a line ---: it is taken to end with line 4"]


@pytest.mark.parametrize("data", [b"", b"---\n---\n", b"\n\n", b"---"])
def test_nothing_in_it(data: bytes) -> None:
    said = read(data)
    assert (said.name, said.description, said.body.strip("-")) == (None, "", "")
    assert said.ignored[-1] == "there is no text below the front matter"


def test_bytes_that_are_no_utf8() -> None:
    said = read(b"---\nname: a\n---\ncaf\xe9")
    assert (said.name, said.body) == ("a", "caf\ufffd")
    assert said.ignored == ["not UTF-8 throughout: the bytes that are not were replaced"]


def test_what_is_too_large_is_refused() -> None:
    assert read(b"x" * MAX_SIZE).body
    with pytest.raises(ValueError, match="larger than 1 MB"):
        read(b"x" * (MAX_SIZE + 1))


def test_a_head_that_is_too_long_is_cut() -> None:
    said = read(head("name: a", *["x: y"] * 100_000, "model: opus"))
    assert (said.name, said.model, said.body) == ("a", None, "Body.")
    assert said.ignored == ["the front matter is longer than 16 KB: ignored from its line 3277 on"]


@pytest.mark.slow
def test_bombs_do_not_go_off() -> None:
    began = time.monotonic()
    bomb = ["a: &a [x, x]", *[f"{c}: &{c} [*{b}, *{b}]" for b, c in pairwise("abcdefghijklmnopq")]]
    said = read(head("name: n", *bomb, "<<: [*a, *a]", "description: *q"))
    assert (said.name, said.description) == ("n", "*q")
    assert "q: not valid YAML" in said.ignored
    assert read(head("name: n", "deep: " + "[" * 15_000)).name == "n"
    assert read(head("name: !!python/object/apply:os.abort []", "id: x")).id == "x"
    assert time.monotonic() - began < 10


WORDS = st.sampled_from(
    ["---", "\n", ":", " ", "name", "tools", "description: ", "- ", "[", "]", "{", "}", "*a", "&a", "!", "|", ">",
     "'", '"', "#", "\t", "\r", "\0", "\x85", "<<: ", "%YAML", "...", "é", "\ufeff", "Bash(", ")", ",", "~", "? "]
)  # fmt: skip


HEADS = st.lists(WORDS, max_size=60).map(lambda words: ("---\n" + "".join(words)).encode())


@given(st.one_of(st.binary(max_size=300), HEADS))
@example(b"---\n2026-99-99: 1\n---")
@example(b"---\n? [a]\n: b\n---")
def test_nothing_makes_it_fail(data: bytes) -> None:
    said = read(data)
    for text in (said.name, said.id, said.model):
        assert text is None or (text.isprintable() and 0 < len(text) <= 200)
    assert all(isinstance(tool, str) and tool for tool in said.tools or [])
    assert len(said.description) <= max(200, len(data))


def test_half_a_character_is_none() -> None:
    found = read(b'---\nname: a\ndescription: "x\\ud800y"\ntools: ["\\udc00"]\n---\nbody\n')
    assert (found.description, found.tools) == ("x?y", ["?"])
