"""What templates of a definition come to when it is submitted: by then only the parameters have values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from orchestr8d.core import template
from orchestr8d.core.decode import unknown
from orchestr8d.core.errors import Fault
from orchestr8d.core.step_templates import as_due, strings
from orchestr8d.core.template_names import Use
from orchestr8d.core.template_work import Limits, TemplateError, Work, is_long
from orchestr8d.core.workflow import Param

# For all templates of a definition together, beside the limits of each: what is over is left for later.
_STEPS: Final = 1_000_000
_TEXT: Final = 4 << 20
_LATER: Final = object()
# What templates may name; when a definition is submitted, the first alone.
NAMES: Final = ("params", "tasks", "signals", "workflow", "round", "feedback", "item", "index")
_WORDS: Final = 250_000
_TOO_MUCH: Final = f"more than {_WORDS:,} words and signs in templates and expressions"


class SubmitTime:
    """Renders what names parameters alone, within what a whole definition may take."""

    def __init__(self, params: Mapping[str, Param], values: Mapping[str, Any] | None) -> None:
        """`values` None: something is wrong with them, and no template is rendered."""
        self._params = params
        self._names = None if values is None else {"params": dict(values)}
        self._limits = Limits()
        self._steps, self._text, self._words = _STEPS, _TEXT, _WORDS

    def settle(
        self, said: Mapping[str, Any], fields: Collection[str], at: str, faults: list[Fault]
    ) -> dict[str, Any]:  # fmt: skip
        """`said` with those of its fields rendered that are needed now; without those of which nothing can be told."""
        done = dict(said)
        for name in fields:
            if name not in said or not (found := list(strings(said[name], at + name))):
                continue
            before = len(faults)
            for path, text in found:
                named, wrong = self.check(text, path, NAMES)
                later = dict.fromkeys(use.name for use in named if use.name in NAMES[1:])
                faults += wrong or [Fault(path, f"{name} is not known yet when this is decided") for name in later]
            value = _LATER if len(faults) > before else self.value(said[name], at + name, faults)
            if value is _LATER:
                del done[name]
            else:
                done[name] = value
        return done

    def early(self, text: str | None) -> str | None:
        """A text for which a template may stand, as it is known by now."""
        if text is None or not template.is_template(text):
            return text
        named, faults = self.check(text, "", NAMES)
        if faults or any(use.name in NAMES[1:] for use in named):
            return text
        value = self.value(text, "", [])
        return text if value is _LATER else template.as_text(value)

    def check(self, text: str, path: str, names: Collection[str]) -> tuple[list[Use], list[Fault]]:
        """What a template uses, and what is wrong with it."""
        return self._checked(path, lambda seen: template.check(text, names, self._limits, seen))

    def check_expression(self, text: str, path: str, names: Collection[str]) -> tuple[list[Use], list[Fault]]:
        """The same for an expression."""
        return self._checked(path, lambda seen: template.check_expression(text, path, names, self._limits, seen))

    def _checked(self, path: str, check: Callable[[template.Seen], list[Fault]]) -> tuple[list[Use], list[Fault]]:
        if self._words <= 0:
            return [], [Fault("", _TOO_MUCH, "unprocessable")]
        seen = template.Seen()
        found = [Fault(path, fault.message) for fault in check(seen)]
        self._words -= seen.words
        return seen.uses, found + self._params_faults(path, seen.uses)

    def _params_faults(self, path: str, uses: Sequence[Use]) -> list[Fault]:
        """The parameters that are named and that there are not."""
        named = dict.fromkeys(str(use.keys[0]) for use in uses if use.name == "params" and use.keys)
        return [
            unknown(path, name, list(self._params), what=f"parameter {name!r}")
            for name in named
            if name not in self._params
        ]

    def value(self, value: Any, path: str, faults: list[Fault]) -> Any:
        """What a value with templates over parameters comes to; LATER when that is not told now, or wrong."""
        if self._names is None or self._steps <= 0 or self._text <= 0:
            return _LATER
        work = Work(self._limits)
        try:
            found = template.render({path: value}, self._names, self._limits, work)[path]
        except TemplateError as e:
            faults.append(Fault(e.path, e.message))
            return _LATER
        finally:
            self._steps -= work.spent
            self._text -= work.written
        return found

    def expression(self, text: str) -> Any:
        """What an expression over parameters comes to; LATER when that is not told now, or wrong."""
        if self._names is None or self._steps <= 0:
            return _LATER
        try:
            return template.evaluate(text, self._names, self._limits)
        except TemplateError:
            return _LATER
        finally:
            self._steps -= self._limits.steps // 100

    def body(
        self, templates: Mapping[str, Any], own: Collection[str], faults: list[Fault]
    ) -> tuple[dict[str, Any], set[str]]:  # fmt: skip
        """The part of a task's body in which templates are, with those rendered that stand at `own`; and the paths of
        those that are left as they are."""
        left: set[str] = set()

        def rendered(text: str, path: str) -> Any:
            value = self.value(text, path, faults) if path in own else _LATER
            if value is _LATER or (isinstance(value, str) and is_long(value)):
                left.add(path)
                return text
            return as_due(path.removeprefix("options."), value)

        return template.mapped(dict(templates), "", rendered), left
