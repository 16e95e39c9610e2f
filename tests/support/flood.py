"""Programs that print: floods, and exactly the bytes that a test drew, cut where the test wants it."""

from __future__ import annotations

import base64
import itertools
import json
import os
import string
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import quote

from .text import ESCAPES

PYTHON = (sys.executable, "-I", "-S")
WAIT = "wait"
"""Between two pieces: go on when the test opens the gate."""

KINDS = ("lines", "colours", "redrawn", "endless")
_FLOOD = """
import os, sys
size, kind, last = int(sys.argv[1]) << 20, sys.argv[2], sys.argv[3]
lines = {
    "lines": "%07d compiled the module from its source, and wrote it to where it belongs\\n",
    "colours": "\\033[32m%07d\\033[0m \\033[1;34mcompiled\\033[0m the \\033]8;;file:x\\033\\\\module\\n",
    "redrawn": "%07d of many modules\\r",
    "endless": "%07d and no end ",
    "secrets": "%07d key {} or {}\\n",
}
secrets = [text for name, text in os.environ.items() if name.startswith("SECRET_")]
pairs = [(secrets[n % len(secrets)], secrets[-n % len(secrets)]) for n in range(2000) if secrets]
block = "".join(
    (lines[kind] % n).format(*pairs[n]) if kind == "secrets" else lines[kind] % n for n in range(2000)
).encode()
block *= max(1, (1 << 18) // len(block))
def say(data):
    while data:
        data = data[os.write(1, data):]
print("ready", flush=True)
open("gate").readline()
for _ in range(size // len(block)):
    say(block)
say(("\\n%s\\n" % last).encode())
"""

_RECITAL = """
import fcntl, json, os, sys, time
for piece in json.load(open(sys.argv[1])):
    if piece == "wait":
        while not open("gate").readline():
            pass  # whoever opened it the last time had not closed it yet
        continue
    data = piece.encode("latin-1")
    while data:
        data = data[os.write(1, data):]
    # What reads has taken it all: the next piece comes in a read of its own.
    while fcntl.ioctl(1, 0x541B, bytes(4)) != bytes(4):
        time.sleep(0)
"""


def flood(mebibytes: int, kind: str, last: str) -> tuple[str, ...]:
    """The argv of a program that waits for the gate, prints so much, and `last` as its last line."""
    return (*PYTHON, "-c", _FLOOD, str(mebibytes), kind, last)


def recital(file: Path, pieces: Iterable[bytes | str]) -> tuple[str, ...]:
    """The argv of a program that prints these bytes; each piece is read before the next is written.

    `WAIT` among them lets it wait for the gate.
    """
    kept = [piece if isinstance(piece, str) else piece.decode("latin-1") for piece in pieces]
    file.write_text(json.dumps(kept), "utf-8")
    return (*PYTHON, "-c", _RECITAL, str(file))


def declared(argv: Sequence[str], secrets: Sequence[str] = (), **limits: int) -> str:
    """A bilt.toml with one step that runs this program."""
    table = "".join(f"{name} = {value}\n" for name, value in limits.items())
    words = ", ".join(f"'''{word}'''" for word in argv)
    named = ", ".join(f"'{name}'" for name in secrets)
    return f"[workflow]\n{table}[[step]]\nname = 'output'\nrun = [{words}]\nsecrets = [{named}]\n"


@dataclass(frozen=True)
class Memory:
    """Bytes of memory that a process uses now, and at most used so far."""

    now: int
    peak: int


def memory_of(pid: int) -> Memory | None:
    """What the kernel says of a process; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return None
    found = dict(
        line.split(":\t") for line in text.splitlines() if line.startswith(("VmRSS", "VmHWM"))
    )
    if len(found) < 2:
        return None  # a zombie has no memory any more
    return Memory(*(int(found[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")))


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder: what is kept of output while it comes, and afterwards."""
    total = 0
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total


# -- what is drawn ---------------------------------------------------------------------------------

INVISIBLE = (
    *("\u00ad", "\u034f", "\u061c", "\u180e", "\u200b", "\u200d", "\u200f", "\u202e", "\u2060"),
    *("\u2066", "\ufe0f", "\ufeff", "\U000e0041", "\U000e0100", "\u3164", "\uffa0"),
)
"""Zero width, bidi, variation selectors, tags and fillers."""
_TEXT = string.ascii_letters + string.digits + "äé漢🚀 "
_WORD = string.ascii_letters + string.digits
_STARTS = ("\x1b]", "\x1bP", "\x1bX", "\x1b^", "\x1b_", "\x90", "\x98", "\x9d", "\x9e", "\x9f")
_SHAPES = (
    *(
        ("ghp_", 36),
        ("ghs_", 36),
        ("github_pat_", 60),
        ("glpat-", 20),
        ("xoxb-", 40),
        ("sk_live_", 24),
    ),
    *(
        ("npm_", 36),
        ("pypi-", 80),
        ("sk-proj-", 48),
        ("sk-ant-api03-", 60),
        ("AIza", 35),
        ("bilt_live_", 43),
    ),
    *(("hf_", 34), ("whsec_", 32), ("dckr_pat_", 27), ("GOCSPX-", 28), ("AKIA", 16), ("ASIA", 16)),
    *(
        ("Bearer ", 40),
        ("Authorization: Bearer ", 30),
        ("X-API-Key: ", 32),
        ("aws_session_token=", 60),
    ),
    *(("SecretAccessKey: ", 40), ("eyJ", 0), ("://bob:", 0)),
)


def _some(random: Random, alphabet: str, least: int, most: int) -> str:
    return "".join(random.choices(alphabet, k=random.randint(least, most)))


def token(random: Random) -> tuple[str, str, str]:
    """The name of a well-known shape, a secret that has it, and what of it must not be seen."""
    start, length = random.choice(_SHAPES)
    if start == "eyJ":
        parts = [_some(random, _WORD, 20, 60) for _ in range(3)]
        return start, f"eyJ{'.'.join(parts)}", parts[2]
    if start == "://bob:":
        password = _some(random, _WORD, 16, 30)
        return start, f"https://bob:{password}@example.com/", password
    alphabet = string.ascii_uppercase + string.digits if start in ("AKIA", "ASIA") else _WORD
    text = _some(random, alphabet, length, length)
    return start, start + text, text[-12:]


def hostile(random: Random) -> str:
    """Text, control characters, parts of sequences and what cannot be seen, in any order."""
    made: list[str] = []
    for _ in range(random.randint(1, 10)):
        kind = random.randrange(8)
        if kind == 0:
            made.append(_some(random, _TEXT, 1, 12))
        elif kind == 1:
            made.append(random.choice(ESCAPES))
        elif kind == 2:
            made.append(chr(random.choice([*range(32), *range(127, 160)])))
        elif kind == 3:
            made.append(random.choice(INVISIBLE))
        elif kind == 4:
            made.append(chr(random.randrange(0x110000)))
        elif kind == 5:
            made.append(
                chr(
                    random.choice([0x2000, 0xD800, 0xFFF0, 0x1BCA0, 0x1D170, 0xE0000])
                    + random.randrange(64)
                )
            )
        elif kind == 6:
            made.append(_whole(random))
        else:
            made.append(random.choice(["\r", "\r\n", "\t", "::error::", "\x1b" * 9, "\u202e" * 9]))
    if random.random() < 0.01:
        made.append("x" * random.randint(1000, 9000))
    return "".join(made)


def _whole(random: Random) -> str:
    kind = random.randrange(4)
    if kind == 0:
        body = _some(random, "0123456789:;<=>?", 0, 12) + _some(random, " !#$%&()*+,-./", 0, 2)
        return random.choice(["\x1b[", "\x9b"]) + body + chr(random.randint(0x40, 0x7E))
    if kind == 1:
        body = _some(random, _TEXT + "[]()#;:/\t\u202e", 0, 80)
        return random.choice(_STARTS) + body + random.choice(["\x07", "\x1b\\", "\x9c"])
    if kind == 2:
        return "\x1b" + random.choice(" !#%()*+-./") + chr(random.randint(0x30, 0x4F))
    return "\x1b" + random.choice(
        "0123456789:;<=>?@ABCDEFGHIJKLMNOQRSTUVWYZ`abcdefghijklmnopqrstuvwxyz|}~"
    )


def whole_sequences(random: Random) -> tuple[str, str]:
    """A text, and the same text with complete sequences and invisible characters in it."""
    shown = given = ""
    for _ in range(random.randint(1, 6)):
        text = _some(random, _TEXT, 0, 10)
        noise = _whole(random) if random.random() < 0.7 else random.choice(INVISIBLE)
        shown, given = shown + text, given + text + noise
    return shown, given


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The pieces between the places."""
    ends = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends) if end > start]


def cut_up(random: Random, data: bytes, pieces: int) -> list[bytes]:
    """`data` in so many pieces or fewer, cut anywhere."""
    return cut_at(data, {random.randrange(len(data)) for _ in range(pieces - 1)})


# -- secrets ---------------------------------------------------------------------------------------

FRAMES = (
    "key {} end",
    "token={};",
    '"{}"',
    "({})",
    "--password {}",
    "\x1b[1m{}\x1b[0m",
    "x\r{} y",
    "{}",
)


@dataclass(frozen=True)
class Planted:
    """A secret as it is printed, and what must not be seen of it."""

    printed: str
    needle: str
    how: str


def drawn_secret(random: Random, values: Sequence[str]) -> Planted:
    """A declared value as it is or encoded, or (always without values) a token of a known shape."""
    form = random.randrange(8)
    value = random.choice(values) if values else ""
    if form < 3 or not values:
        name, text, needle = token(random)
        return Planted(text, needle, name)
    data = value.encode()
    how, text = [
        ("plain", value),
        ("base64", base64.b64encode(data).decode()),
        ("URL", quote(value, safe="")),
        ("JSON", json.dumps(value)[1:-1]),
        ("plain", value),
    ][form - 3]
    return Planted(text, text[4:-4], how)


WAYS = ("read", "colour", "zero width", "CR")


def split_up(random: Random, values: Sequence[str], how: str) -> Planted:
    """A secret with something between its characters; "read" leaves that to `script`."""
    # The last part after a CR is shown, as a terminal shows it; so only tokens, each drawn once.
    planted = drawn_secret(random, () if how == "CR" else values)
    text = planted.printed
    if how == "read":
        return Planted(text, planted.needle, how)
    if how == "CR":
        middle = random.randint(1, len(text) - 1)
        return Planted(f"{text[:middle]}\r{text[middle:]}", text, how)
    noise = random.choice(
        INVISIBLE if how == "zero width" else ["\x1b[31m", "\x1b[0;1m", "\x9b7m", "\x1b]0;t\x07"]
    )
    often, sure = random.choice([0.05, 0.3, 1.0]), random.randrange(1, len(text))
    mixed = [noise + c if n == sure or random.random() < often else c for n, c in enumerate(text)]
    return Planted("".join(mixed), planted.needle, how)


def script(random: Random, planted: Sequence[Planted]) -> list[bytes]:
    """Everything in lines with numbers, cut here and there, and inside those to be split by a read."""
    lines: list[bytes] = []
    places: set[int] = set()
    size = 0
    for number, each in enumerate(planted):
        before, _, after = random.choice(FRAMES).partition("{}")
        front = (f"{before}{number}> " if "\r" in before else f"{number}> {before}").encode()
        if each.how == "read":
            places.add(size + len(front) + random.randrange(1, len(each.printed.encode())))
        lines.append(front + f"{each.printed}{after}\n".encode())
        size += len(lines[-1])
    places |= {random.randrange(1, size) for _ in range(len(planted) // 10)}
    return cut_at(b"".join(lines), places)
