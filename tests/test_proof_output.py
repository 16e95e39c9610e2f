"""Output of builds, drawn at random and hostile: bounded everywhere, and nothing through that must not be seen."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import anyio
import pytest

from bilt_mcp.engine.output import MAX_LINE_CHARS, MAX_PIECE_BYTES, LineReader
from bilt_mcp.engine.safe_text import Redactor, clean
from bilt_mcp.engine.step_output import MAX_NOTICES, TAIL_LINES, StepOutput

from .support.builds import Build, Gate, build_in
from .support.flood import (
    INVISIBLE,
    KINDS,
    WAIT,
    WAYS,
    Memory,
    Planted,
    cut_up,
    declared,
    drawn_secret,
    flood,
    hostile,
    memory_of,
    recital,
    script,
    size_of,
    split_up,
    whole_sequences,
)
from .support.proof import Proof
from .support.text import is_forbidden
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

MIB = 1 << 20
MEMORY = 64 * MIB
LOG_BYTES, MAX_MESSAGES = 1_310_720, 200  # what applies when bilt.toml says nothing
REDACTED = "[redacted]"
SECRETS = 40
forbidden = cache(is_forbidden)


@pytest.fixture
def values(proof: Proof) -> dict[str, str]:
    """Values of secret variables, as the server's environment has them."""
    alphabet = "".join(map(chr, range(33, 127))) + "äßé漢🔑"
    letters = [
        proof.random.choices(alphabet, k=proof.random.randint(16, 60)) for _ in range(SECRETS)
    ]
    return {f"SECRET_{n}": "".join(each) for n, each in enumerate(letters)}


@pytest.fixture
async def build(tmp_path: Path, values: dict[str, str]) -> AsyncGenerator[Build]:
    async with build_in(tmp_path, values) as made:
        yield made


@dataclass(frozen=True)
class Kept:
    """What is to be seen of a workflow when all is over."""

    said: list[str]
    """Its messages."""
    log: str

    @property
    def texts(self) -> list[str]:
        return [*self.said, self.log]


async def kept_of(build: Build, workflow_id: str) -> Kept:
    """Wait until the log is safe to show; nothing raw is left then."""
    folder = build.location.run(workflow_id)

    def is_safe() -> bool:
        raw = {*folder.glob("*.head"), *folder.glob("*.tail*")}
        return not raw and (folder / "01.1.log").exists()

    await wait_until(is_safe, "the log is safe to show", timeout=60)
    log = (folder / "01.1.log").read_bytes().decode()
    return Kept([m.content for m in await build.messages(workflow_id)], log)


def seen_wrong(text: str) -> list[str]:
    """The forbidden characters of a text that is shown."""
    return sorted(char for char in set(text) if forbidden(char))


# -- floods ----------------------------------------------------------------------------------------


async def flooded(build: Build, gate: Gate, kind: str, size: int) -> tuple[float, list[int]]:
    """One flood, held to its bounds; its seconds, and by how much worker and keeper grew."""
    last = f"the last line of {kind}"
    build.declare(declared(flood(size, kind, last)))
    workflow_id = await build.start()
    await build.says("ready", workflow_id)
    pids = build.worker_pid(), build.keeper_pid()
    before = [memory_of(pid) or Memory(0, 0) for pid in pids]
    peaks, folder, largest = [0, 0], build.location.run(workflow_id), 0

    async def watch() -> None:
        nonlocal largest
        while True:
            for each, pid in enumerate(pids):
                peaks[each] = max(peaks[each], (memory_of(pid) or Memory(0, 0)).peak)
            largest = max(largest, size_of(folder))
            await anyio.sleep(0.01)

    began = time.monotonic()
    seconds = 0.0
    session = await build.session()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await gate.open()
        session = await build.ended()
        seconds = time.monotonic() - began
        tasks.cancel_scope.cancel()
    kept = await kept_of(build, workflow_id)
    assert session.status == "completed"
    grown = [peak - was.now for peak, was in zip(peaks, before, strict=True)]
    assert max(grown) <= MEMORY, f"{kind}: worker and keeper grew by {grown}"
    assert min(peaks) > 0
    assert largest <= 2 * LOG_BYTES + 65536, "raw and safe log, for a moment both"
    assert len(kept.log.encode()) <= LOG_BYTES + 1024
    assert len(kept.said) <= MAX_MESSAGES + MAX_NOTICES + TAIL_LINES + 8
    assert max(len(text.encode()) for text in kept.said) <= MAX_PIECE_BYTES
    assert kept.log.rstrip().endswith(last), f"{kind}: the log ends with {kept.log[-80:]!r}"
    assert any(last in text for text in kept.said[-TAIL_LINES:]), f"{kind}: {kept.said[-2:]}"
    return seconds, grown


async def test_a_flood_stays_within_the_bounds_of_log_messages_and_memory(
    build: Build, proof: Proof
) -> None:
    gate, size = Gate(build), proof.size(96, 1024)
    told: list[str] = []
    for kind in proof.random.sample(KINDS, len(KINDS)):
        seconds, grown = await flooded(build, gate, kind, size)
        worker, keeper = (each / MIB for each in grown)
        told.append(
            f"{kind} {seconds:.1f} s, {size / seconds:.0f} MiB/s, worker +{worker:.0f} and keeper +{keeper:.0f} MiB"
        )
    proof.figure(f"floods of {size} MiB: {'; '.join(told)}; the last line always readable")


async def test_no_part_of_a_secret_is_left_where_a_flood_was_cut(
    build: Build, values: dict[str, str], proof: Proof
) -> None:
    gate = Gate(build)
    cuts, few = 0, sorted(values)[:4]
    parts = [values[name][n : n + 8] for name in few for n in range(len(values[name]) - 7)]
    for _ in proof.rounds(5, 80):
        log_bytes = proof.random.randint(65536, 150_000)
        argv = flood(proof.random.randint(2, 6), "secrets", "x" * proof.random.randint(1, 99))
        build.declare(declared(argv, few, log_bytes=log_bytes))
        workflow_id = await build.start()
        await build.says("ready", workflow_id)
        await gate.open()
        await build.ended()
        kept = await kept_of(build, workflow_id)
        assert REDACTED in kept.log
        text = "\n".join(kept.texts)
        cuts += text.count(" left out ")
        assert [part for part in parts if part in text] == []
    proof.figure(
        f"{cuts} places where output was left out, no 8 characters of a secret at any of them"
    )


# -- control sequences -----------------------------------------------------------------------------


def test_no_forbidden_character_is_left_of_random_control_strings(proof: Proof) -> None:
    random = proof.random
    waste: list[bytes] = []
    count = characters = 0
    for _ in proof.rounds(20_000, 1_000_000):
        text = hostile(random)
        once = clean(text)
        assert seen_wrong(once) == [], ascii(text)
        once.encode()
        assert clean(once) == once, ascii(text)
        shown, given = whole_sequences(random)
        assert clean(given) == shown, ascii(given)
        waste.append(text.encode("utf-8", "surrogatepass") + random.choice([b"\n", b"", b"\xff"]))
        characters += len(text) + len(given)
        if len(waste) == 500:
            count += read_in_pieces(random, b"".join(waste))
            waste.clear()
    proof.figure(
        f"{proof.size(20_000, 1_000_000)} random strings and as many of whole sequences, {characters} characters, "
        f"read back as {count} lines: 0 forbidden characters, no line over {MAX_LINE_CHARS}"
    )


def read_in_pieces(random: Random, data: bytes) -> int:
    """Hold what a reader makes of `data`, however it is cut, to its promises; how many lines."""
    reader = LineReader(Redactor())
    lines = [line for piece in cut_up(random, data, 40) for line in reader.feed(piece)]
    lines += reader.finish()
    assert len(lines) == data.count(b"\n") + (not data.endswith(b"\n"))
    assert max(map(len, lines)) <= MAX_LINE_CHARS
    assert seen_wrong("".join(lines)) == []
    whole = LineReader(Redactor())
    assert lines == [*whole.feed(data), *whole.finish()], "where reads end makes a difference"
    return len(lines)


async def test_no_forbidden_character_comes_through_a_real_step(build: Build, proof: Proof) -> None:
    random = proof.random
    sizes: Counter[str] = Counter()
    for _ in proof.rounds(1, 10):
        ends = [b"\n", b"\n", b"\xe2\n", b""]
        data = b"".join(
            hostile(random).encode("utf-8", "surrogatepass") + random.choice(ends)
            for _ in range(3_000)
        )
        pieces = [*cut_up(random, data, 300), b"\nthe end of it\n"]
        argv = recital(Path(build.project.root, "said"), pieces)
        build.declare(declared(argv, log_bytes=64 * MIB, max_messages=10_000))
        workflow_id = await build.start()
        assert (await build.ended()).status == "completed"
        kept = await kept_of(build, workflow_id)
        assert "left out" not in kept.log
        assert "the end of it" in kept.log.splitlines()
        assert any("the end of it" in text for text in kept.said)
        for text in kept.texts:
            assert seen_wrong(text) == []
            assert max(map(len, text.split("\n"))) <= MAX_LINE_CHARS
        assert max(len(text.encode()) for text in kept.said) <= MAX_PIECE_BYTES
        sizes.update(strings=3_000, writes=len(pieces), bytes=len(data), messages=len(kept.said))
        sizes.update({"lines of log": kept.log.count("\n")})
    told = ", ".join(f"{count} {name}" for name, count in sizes.items())
    proof.figure(f"{told}: 0 forbidden characters")


RATIO = 150
"""How much longer than plain text hostile text may take: some 15 times is usual, quadratic is thousands."""


def test_hostile_lines_of_64_kib_take_time_in_proportion_to_plain_ones(proof: Proof) -> None:
    redactor = Redactor(["a" * 20 + "b", "secret-of-the-day"])

    def seconds(text: str, tries: int) -> float:
        taken: list[float] = []
        for _ in range(tries):
            began = time.process_time()
            redactor.redact(clean(text))
            taken.append(time.process_time() - began)
        return min(taken)

    plain = seconds(("compiled the module from its source and wrote it. " * 1400)[:65536], 20)
    worst, of = 0.0, ""
    for n in proof.rounds(80, 10_000):
        drawn = proof.random.choices(INVISIBLE_AND_MARKS, k=proof.random.randint(1, 4))
        unit = "".join(drawn) if n >= len(INVISIBLE_AND_MARKS) else INVISIBLE_AND_MARKS[n]
        text = (unit * 65536)[:65536]
        took = seconds(text, 1)
        if took > RATIO * plain:
            took = min(took, seconds(text, 3))
        assert took <= RATIO * plain, f"{took / plain:.0f} times as long for {unit!a}"
        if took > worst:
            worst, of = took, unit
    proof.figure(
        f"{proof.size(80, 10_000)} units repeated to 64 KiB: at most {worst / plain:.0f} times plain text's "
        f"{plain * 1000:.2f} ms, for {of!a}"
    )


INVISIBLE_AND_MARKS = [
    *(
        "\x1b]",
        "\x1b[",
        "\x1b[0",
        "\x1b",
        "\x9d",
        "\x9b",
        "\x90",
        "\x1bP",
        "\x1b\\",
        "\x07",
        "\x1b ",
    ),
    *("eyJ", "eyJaaaaaaaa.", "://", "://a:", "@", ":", "sk-", "glpat-", "ghp_", "AKIA", "xoxb-"),
    *(
        "authorization: ",
        "bearer ",
        "secret_access_key",
        "session_token = ",
        "=",
        '"',
        " ",
        "\t",
        "a",
        "-",
    ),
    *(
        "-----BEGIN ",
        "PRIVATE KEY-----",
        "hooks.slack.com/",
        "bilt_live_",
        "pypi-",
        "AIza",
        *INVISIBLE,
    ),
]


# -- secrets ---------------------------------------------------------------------------------------


def held_back(planted: Sequence[Planted], kept: Kept) -> None:
    """No secret is in any message or in the log, and every line that had one is there without it."""
    said = "\n".join(kept.said)
    for text in (said, kept.log):
        assert "left out" not in text
        lines = dict(re.findall(r"^(\d+)> (.*)$", text, re.MULTILINE))
        for number, each in enumerate(planted):
            assert each.needle not in text, f"{each} is in {lines.get(str(number))!r}"
            if each.how != "CR":
                assert REDACTED in lines[str(number)], f"{each} became {lines[str(number)]!r}"


async def test_no_planted_secret_comes_through_a_real_step_whole_or_split(
    build: Build, values: dict[str, str], proof: Proof
) -> None:
    gate, known = Gate(build), list(values.values())
    told: Counter[str] = Counter()
    for _ in proof.rounds(1, 10):
        whole = [drawn_secret(proof.random, known) for _ in range(3_000)]
        split = [split_up(proof.random, known, WAYS[n % len(WAYS)]) for n in range(600)]
        halves = [drawn_secret(proof.random, known) for _ in range(5)]
        await recite(build, gate, proof.random, sorted(values), whole, split, halves)
        told["whole"] += len(whole)
        told.update(each.how for each in split)
        told["flush"] += len(halves)
    proof.figure(
        f"secrets through: 0 of {told.total()}, in messages or log "
        f"({', '.join(f'{count} {how}' for how, count in told.items())})"
    )


async def recite(
    build: Build,
    gate: Gate,
    random: Random,
    secrets: Sequence[str],
    whole: Sequence[Planted],
    split: Sequence[Planted],
    halves: Sequence[Planted],
) -> None:
    """Print them all in a step, the halves with a message in between, and hold what is kept to its promise."""
    planted = [*whole, *split]
    pieces: list[bytes | str] = [*script(random, planted)]
    for number, each in enumerate(halves):
        middle = len(each.printed) // 2
        first = f"half {number} is said\n{len(planted) + number}> {each.printed[:middle]}"
        pieces += [first.encode(), WAIT, f"{each.printed[middle:]}\n".encode()]
    argv = recital(Path(build.project.root, "said"), pieces)
    build.declare(declared(argv, secrets, log_bytes=64 * MIB, max_messages=10_000))
    workflow_id = await build.start()
    for number in range(len(halves)):
        # It has become a message while the half of a secret after it waits for its other half.
        await build.says(f"half {number} is said", workflow_id)
        await gate.open()
    assert (await build.ended()).status == "completed"
    held_back([*planted, *halves], await kept_of(build, workflow_id))


def test_no_secret_that_is_taken_half_written_comes_through(
    values: dict[str, str], proof: Proof
) -> None:
    random, few = proof.random, list(values.values())[:4]
    for _ in proof.rounds(300, 30_000):
        output = StepOutput("build", few, 10_000)
        each = drawn_secret(random, few)
        said: list[str] = []
        for piece in cut_up(random, f"before\nkey {each.printed} end\nafter\n".encode(), 5):
            output.feed(piece, 0)
            said += [note.content for note in output.take()[0]]
        said += [note.content for note in output.finish()]
        assert each.needle not in "\n".join(said), each
        assert REDACTED in "\n".join(said), each
    proof.figure(f"{proof.size(300, 30_000)} secrets, flushed after every read: 0 through")
