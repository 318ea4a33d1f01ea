"""What must never be shown: tokens, passwords and keys, found by a field's name or their shape in a text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

HIDDEN: Final = "[redacted]"

_WORD: Final = r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|private[_-]?key|credential)"
_SECRET_NAME: Final = re.compile(
    rf"[a-z0-9_.-]*{_WORD}[a-z0-9_.-]*|(?:proxy-?)?authorization|(?:set-?)?cookie", re.IGNORECASE
)
# Names that hold a word from above and are no secrets: an id or a name of one, a count of a model's tokens.
_PUBLIC_NAME: Final = re.compile(r".*_(?:id|name|scope)|(?:[a-z_]*_)?tokens", re.IGNORECASE)

# Ids, types, states, plain numbers: most of what is logged, let through without a search.
_PLAIN: Final = re.compile(r"[0-9a-f-]*|[a-z.]{1,40}")
_IN_TEXT: Final = re.compile(
    r"(?P<keep>"
    r"\b(?:Bearer|Basic)\s+"
    rf"|{_WORD}[a-z0-9_.-]*[\"']?\s*[=:]\s*[\"']?"
    r"|://[^\s:/@]*:(?=[^\s/@]+@)"
    r")(?P<value>[^\s\"',;&@]{4,})"
    r"|\b(?:sk-|sk_|whsec_|gh[oprsu]_|github_pat_|glpat-|xox[abeprs]-|AKIA|AIza|o8d_)[A-Za-z0-9_.+/=-]{12,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    re.IGNORECASE,
)


@lru_cache(1024)
def is_secret_name(name: str) -> bool:
    """Whether a field, header or variable of this name holds a secret: `API_TOKEN`, `Authorization`."""
    return bool(_SECRET_NAME.fullmatch(name)) and not _PUBLIC_NAME.fullmatch(name)


def text(value: str) -> str:
    """The text without what looks like a secret: bearer tokens, `password=…`, URLs' passwords, known shapes."""
    if _PLAIN.fullmatch(value):
        return value
    return _IN_TEXT.sub(lambda m: (m["keep"] or "") + HIDDEN, value)


def value(name: str, item: object) -> object:
    """`item`, stored under `name`, fit to be shown; dicts and lists are walked."""
    if isinstance(item, str):
        return HIDDEN if item and is_secret_name(name) else text(item)
    if isinstance(item, dict):
        return {k: value(k if isinstance(k, str) else "", v) for k, v in item.items()}
    if isinstance(item, (list, tuple)):
        return [value(name, v) for v in item]
    if isinstance(item, (bytes, bytearray)) and is_secret_name(name):
        return HIDDEN
    return item
