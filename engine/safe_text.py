r"""Text that comes from builds, made safe to show (CONTRACT section 5).

    clean(text)                     without control sequences and invisible characters
    Redactor(values).redact(text)   values of secrets, and what looks like a token, as `[redacted]`

In this order, so that a secret that is split by a colour code or by an invisible character is
found. Redaction is best effort, by known shapes: a build that means to leak can always encode.
What is promised is that a declared value, as it stands or in the usual encodings, does not pass
by accident.

Every pattern takes time linear in the text: each starts at a literal, and what follows a repeat
either cannot match inside that repeat or is bounded. (Python 3.11 has possessive `*+`.)
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
MIN_VALUE = 4
"""Shortest value that is looked for: one of "1", "no" or "dev" would blank out half a log."""
MIN_PART = 8
"""Shortest line of a value, or encoded form of it, that is looked for on its own."""
MAX_FORM = 4096
"""Longest string that is looked for; a longer line of a value is looked for in pieces of 1024."""


class _Shape(NamedTuple):
    """A token's pattern; it is tried only where one of `marks` (lower case) occurs."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    result: str = REDACTED


# What ends a string sequence (OSC, DCS, APC, PM, SOS), and what stands before that. One that has no
# end within the bound loses only its introducer: it must not swallow the rest of a log.
_STRING = r"[^\x00-\x08\x0a-\x1f\x7f-\x9f]{0,4096}+(?:\x07|\x1b\\|\x9c)"
_PARAMETERS = r"[0-?]*+[ -/]*+[@-~]?"  # of a control sequence (CSI), also of one that is cut off
_C0_C1 = r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # but tab and newline
_INVISIBLE = (
    # Default_Ignorable_Code_Point of Unicode: zero width, bidi, variation selectors, fillers
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    r"\u2028\u2029\ufff9-\ufffb"  # line separators, annotations
    r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # surrogates, noncharacters
)
_INVISIBLE_ASTRAL = (
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # as above, and tags
    + "".join(f"{chr(p * 0x10000 + 0xFFFE)}{chr(p * 0x10000 + 0xFFFF)}" for p in range(1, 17))
)
_CONTROL = re.compile(
    # Begins with one small set, for which `re` has a fast search, and then looks back at what it
    # was: six times as fast as alternatives, or as a set with many ranges outside the BMP.
    rf"[{_C0_C1}{_INVISIBLE}\U00010000-\U0010ffff](?:"
    rf"(?<=\x1b)(?:[\]PX^_]{_STRING}|\[{_PARAMETERS}|[ -/]*+[0-~]?)"
    rf"|(?<=\x9b){_PARAMETERS}"
    rf"|(?<=[\x90\x98\x9d-\x9f]){_STRING}"
    rf"|(?<=[{_C0_C1}{_INVISIBLE}])"
    rf"|(?<=[{_INVISIBLE_ASTRAL}])"
    r")"
)
_PLAIN = bytes([9, 10, *range(32, 127)])


def clean(text: str) -> str:
    """Return `text` without control sequences and without characters that cannot be seen.

    Tab and newline stay, and no sequence goes over a newline. Idempotent; takes time linear in
    the text.
    """
    if text.isascii() and not text.encode().translate(None, _PLAIN):
        return text
    return _CONTROL.sub("", text)


_SCHEME = r"(?:bearer|basic|digest|token|negotiate|apikey)"
_WORD = r"[^\s\"',;<>]"

# None of these matches a newline; `redact_lines` relies on it.
_SHAPES = (
    _Shape(  # GitHub
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "pat_"),
        re.compile(r"(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})"),
    ),
    _Shape(  # GitLab
        ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"),
        re.compile(r"gl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_.-]{16,}"),
    ),
    _Shape(("akia", "asia"), re.compile(r"(?<![A-Z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Z0-9])")),  # AWS
    _Shape(  # AWS, by the name that it is assigned to
        ("secret", "session"),
        re.compile(
            r"((?:secret_?access_?key|(?:aws_?)session_?token)[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?)"
            r"[A-Za-z0-9/+=]{16,}",
            re.IGNORECASE | re.ASCII,
        ),
        rf"\1{REDACTED}",
    ),
    _Shape(("xox", "xapp-"), re.compile(r"(?:xox[a-z]|xapp)-[A-Za-z0-9-]{10,}")),  # Slack
    _Shape(
        ("hooks.slack.com",), re.compile(r"(hooks\.slack\.com/)[A-Za-z0-9/]{20,}"), rf"\1{REDACTED}"
    ),
    _Shape(  # Stripe
        ("_live_", "_test_", "whsec_"),
        re.compile(r"(?:[sr]k_(?:live|test)_|whsec_)[A-Za-z0-9]{10,}"),
    ),
    _Shape(  # our own keys
        ("bilt_",),
        re.compile(r"bilt_(?:(?:live|test)_[A-Za-z0-9_-]{8,}|[A-Za-z0-9_-]{40,})"),
    ),
    _Shape(  # npm, Hugging Face, Docker, DigitalOcean, Shopify
        ("npm_", "hf_", "pat_", "dop_v1_"),
        re.compile(r"(?:npm_|\bhf_|dckr_pat_|dop_v1_|shpat_)[A-Za-z0-9-]{20,}"),
    ),
    _Shape(("pypi-",), re.compile(r"pypi-[A-Za-z0-9_-]{32,}")),
    _Shape(  # OpenAI, Anthropic (sk-ant-); not the end of "task-" or "disk-"
        ("sk-",),
        re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{20,}"),
    ),
    _Shape(  # Google
        ("aiza", "gocspx-", "ya29."),
        re.compile(r"(?:AIza|GOCSPX-|ya29\.)[A-Za-z0-9_-]{20,}"),
    ),
    _Shape(  # a JSON web token; the look-behind keeps "eyJeyJeyJ…" linear
        ("eyj",),
        re.compile(
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){0,4}"
        ),
    ),
    _Shape(
        ("authorization", "x-api-key", "private-token"),
        re.compile(
            r"((?:authorization|x-api-key|private-token)[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?)"
            rf"(?:{_SCHEME}[ \t]{{1,8}}{_WORD}{{4,}}|{_WORD}{{16,}})",
            re.IGNORECASE | re.ASCII,
        ),
        rf"\1{REDACTED}",
    ),
    _Shape(
        ("bearer",),
        re.compile(r"(bearer[ \t]{1,8})[A-Za-z0-9._~+/=-]{20,}", re.IGNORECASE | re.ASCII),
        rf"\1{REDACTED}",
    ),
    _Shape(  # user:password@ of a URL
        ("://",),
        re.compile(r"://[^\s/:@\"'<>]{0,128}+:[^\s/\"'<>]{1,512}@"),
        f"://{REDACTED}@",
    ),
)
_MARKS = frozenset(mark for shape in _SHAPES for mark in shape.marks)

PRIVATE_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_PRIVATE_KEY = re.compile(  # with its line ends, or with `\n` in their place
    PRIVATE_KEY_BEGIN.pattern
    + r"[A-Za-z0-9+/=\s\\]*+(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----)?"
)


class Redactor:
    """Takes secrets out of text that `clean` has been over.

    `secrets` are values of variables. Looked for are the value, each of its lines, and both URL,
    base64 (at each of the three alignments), JSON and workflow-command (`%0A`) encodings.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for value in secrets for form in _forms(value)}
        self._lines = _Values(form for form in forms if "\n" not in form)
        self._blocks = _Values(form for form in forms if "\n" in form)
        self._bytes = tuple(form.encode("utf-8", "replace") for form in forms)

    @property
    def empty(self) -> bool:
        """Whether no value is looked for."""
        return not self._bytes

    @property
    def longest(self) -> int:
        """Bytes of the longest string that `finds_in` looks for."""
        return max(map(len, self._bytes), default=1)

    def finds_in(self, data: bytes) -> bool:
        """Whether a value of a secret stands in the bytes of a file, in any of its forms."""
        return any(form in data for form in self._bytes)

    def redact(self, text: str) -> str:
        """Return `text` with every secret in it replaced by `[redacted]`."""
        text = _PRIVATE_KEY.sub(REDACTED, self._blocks.redact(text))
        return self.redact_lines(text)

    def redact_lines(self, text: str) -> str:
        """As `redact`, as if each line of `text` had been given on its own, only faster.

        Finds no secret that goes over the end of a line, and so keeps the number of lines.
        """
        text = self._lines.redact(text)
        lowered = text.lower()
        present = {mark for mark in _MARKS if mark in lowered}
        for marks, pattern, result in _SHAPES:
            if not present.isdisjoint(marks):
                text = pattern.sub(result, text)
        return text


class _Values:
    """Strings to look for as they stand."""

    def __init__(self, forms: Iterable[str]) -> None:
        # Longest first: of two values that begin alike, the longer one must go as a whole.
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._pattern = re.compile("|".join(map(re.escape, self._forms)))

    def redact(self, text: str) -> str:
        # Several plain searches are far faster than one for the pattern, and most find nothing.
        found = any(form in text for form in self._forms)
        return self._pattern.sub(REDACTED, text) if found else text


def _forms(value: str) -> Iterator[str]:
    # Text is cleaned before it is looked at, so a value must be looked for as it is after that.
    for whole in {value.strip(), clean(value).strip()}:
        if len(whole) < MIN_VALUE:
            continue
        yield from _bounded(whole)
        lines = [line.strip() for line in whole.splitlines()]
        if len(lines) > 1:
            for line in lines:
                if len(line) >= MIN_PART:
                    yield from _bounded(line)
        for form in _encoded(whole):
            if len(form) >= MIN_PART:
                yield from _bounded(form)


def _bounded(form: str) -> Iterator[str]:
    if len(form) <= MAX_FORM:
        yield form
        return
    for start in range(0, len(form), 1024):
        if len(piece := form[start : start + 1024]) >= MIN_PART:
            yield piece


def _encoded(value: str) -> Iterator[str]:
    data = value.encode("utf-8", "replace")
    yield quote(data, safe="")
    yield quote(data)
    yield quote_plus(data)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for shift in range(3):
        # Inside a longer text, for example "user:" + value, base64 has one of three forms; its
        # first and last characters depend on the neighbours and are left out.
        text = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        cut = text[(0, 2, 3)[shift] : len(text) - bool((len(data) + shift) % 3)]
        yield cut
        yield cut.replace("+", "-").replace("/", "_")
