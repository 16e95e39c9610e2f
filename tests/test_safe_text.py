"""Text that comes from builds (CONTRACT section 5): what is taken out of it."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilt_mcp.engine.safe_text import REDACTED, Redactor, clean

from .support.text import HOSTILE_TEXT, SECRET, TOKENS, is_forbidden

# clean


def test_no_forbidden_character_is_left_of_any_single_character() -> None:
    ends = (end - n for end in range(0xFFFF, 0x110000, 0x10000) for n in range(2))
    points = [*range(0x20000), *range(0xE0000, 0xE1000), *ends]
    left = clean("\n".join(map(chr, points)))
    assert [hex(ord(char)) for char in set(left) if is_forbidden(char)] == []


def test_characters_that_are_seen_are_kept() -> None:
    text = "naïve Straße 日本語 عربي 🚀 ⠋ ✓ │ ─ \ufffd \tx\n۝ \ue0b0"
    assert clean(text) == text


@given(HOSTILE_TEXT)
@settings(max_examples=200, deadline=None)
def test_no_forbidden_character_is_left_of_hostile_text(text: str) -> None:
    assert not any(map(is_forbidden, clean(text)))


@given(st.text(st.characters(), max_size=50))
@settings(max_examples=200, deadline=None)
def test_lone_surrogates_do_not_pass(text: str) -> None:
    clean(text).encode()


@given(HOSTILE_TEXT)
@settings(max_examples=200, deadline=None)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[31m",
        "\x1b[38;5;196;1m",
        "\x1b[?25l",
        "\x1b[2K",
        "\x9b31m",
        "\x1b]0;a title\x07",
        "\x1b]8;;https://example.com\x1b\\",
        "\x9d0;a title\x9c",
        "\x1bPq#0;2;0\x1b\\",
        "\x90q#0\x9c",
        "\x1b_payload\x1b\\",
        "\x1b^payload\x1b\\",
        "\x1bXpayload\x1b\\",
        "\x1b(B",
        "\x1b7",
        "\x1b=",
    ],
)
def test_a_control_sequence_goes_with_all_its_parts(sequence: str) -> None:
    assert clean(f"a{sequence}b") == "ab"


@pytest.mark.parametrize("start", ["\x1b]0;", "\x1bP", "\x9d", "\x1b_"])
def test_a_sequence_without_an_end_does_not_swallow_the_text_after_it(start: str) -> None:
    assert "the build failed" in clean(f"{start} the build failed")
    assert "next line" in clean(f"{start}title\nnext line\x07")
    assert "x" * 5000 in clean(f"{start}{'x' * 5000}\x07")


# redact


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_of_known_shapes_are_redacted(name: str) -> None:
    for text in (TOKENS[name], f"token={TOKENS[name]};", f'"{TOKENS[name]}"', f"({TOKENS[name]})"):
        assert TOKENS[name] not in Redactor().redact(text)
        assert REDACTED in Redactor().redact(text)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("authorization: Basic dXNlcjpwdw==", "dXNlcjpwdw=="),
        ('{"Authorization": "token 0123456789"}', "0123456789"),
        ("curl -H 'X-API-Key: 0123456789abcdef0123'", "0123456789abcdef0123"),
        ("sent bearer abcdefghij0123456789", "abcdefghij0123456789"),
        ("git clone https://bob:pa55w0rd@example.com/x.git", "pa55w0rd"),
        ("postgres://bob:p@ss:w0rd@db:5432/app", "ss:w0rd"),
        ("redis://:pa55w0rd@cache:6379", "pa55w0rd"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE", "wJalrXUtnFEMI"),
        ('"SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE"', "wJalrXUtnFEMI"),
        ("aws_session_token = IQoJb3JpZ2luX2VjEJr0123456789", "IQoJb3JpZ2luX2VjEJr"),
    ],
)
def test_a_credential_is_redacted_where_its_name_gives_it_away(text: str, hidden: str) -> None:
    assert hidden not in Redactor().redact(text)
    assert REDACTED in Redactor().redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "GET https://registry.example.com/left-pad 200 in 12 ms",
        "open http://localhost:3000/a@b",
        "ssh://git@github.com/a/b.git",
        "risk-assessment-of-the-whole-platform and task-management-dashboard-v2",
        "npm_config_cache=/home/bob/.npm npm_lifecycle_event=build",
        "Authorization: required",
        "the bearer of bad news",
        "eyJ is how a JSON object begins in base64",
        "compiled src/components/session_token.ts, secret_access_key.md",
        "sha512-oXXn3EvYyEM+KFWk4sYv0PSP1WbO5Y7HgXjkEoCkQm2nN5zcVVUz1E5xCZUMwYJmZY==",
    ],
)
def test_ordinary_output_is_left_alone(text: str) -> None:
    assert Redactor(["correct horse"]).redact(text) == text


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        json.dumps(SECRET)[1:-1],
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_redacted_in_the_usual_encodings(form: str) -> None:
    redacted = Redactor([SECRET]).redact(f"before {form} after")
    assert redacted.startswith("before [redacted]")
    assert form[4:-4] not in redacted


@given(st.binary(max_size=7), st.text(min_size=12, max_size=40), st.binary(max_size=7))
@settings(max_examples=60, deadline=None)
def test_a_secret_is_redacted_inside_longer_base64(a: bytes, secret: str, b: bytes) -> None:
    secret = clean(secret).strip()
    data = secret.encode()
    if len(data) < 12:
        return
    told = Redactor([secret]).redact(base64.b64encode(a + data + b).decode())
    assert REDACTED in told


@given(st.text(min_size=4, max_size=60))
@settings(max_examples=150, deadline=None)
def test_a_secret_of_any_characters_is_redacted_after_cleaning(secret: str) -> None:
    seen = clean(secret).strip()
    if len(seen) < 4 or seen in REDACTED or any(c in "[]" for c in seen):
        return
    for text in (secret, f"x{secret}y"):
        assert seen not in Redactor([secret]).redact(clean(text))


def test_very_short_values_are_not_looked_for() -> None:
    assert Redactor(["", " ", "1", "dev"]).redact("1 dev build 1") == "1 dev build 1"
    assert Redactor(["prod"]).redact("prod build") == "[redacted] build"


def test_of_two_secrets_that_begin_alike_the_longer_goes_as_a_whole() -> None:
    assert Redactor(["password", "password-of-bob"]).redact("password-of-bob") == REDACTED


def test_a_secret_of_several_lines_is_redacted_whole_and_line_by_line() -> None:
    secret = "first line of it\nshort\nthird line of it\n"
    redactor = Redactor([secret])
    assert redactor.redact(f"a {secret} b") == "a [redacted]\n b"
    assert redactor.redact("> third line of it") == "> [redacted]"
    assert redactor.redact("short") == "short"


REPEATED = [
    *("eyJ", "eyJ-", "eyJaaaaaaaaaa.", "://", "://a", "://a:", "://a:b", "sk-", "sk-a", "glpat-"),
    *("ghp_", "AKIA", "xoxb-", "pypi-", "bilt_live_", "hooks.slack.com/", "bearer ", "a"),
    *("authorization: ", "authorization: bearer ", "secretaccesskey", "secret_access_key: "),
    *("session_token = ", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN A PRIVATE KEY"),
    *("\x1b]", "\x1b[", "\x1b[0", "\x1b", "\x9d", "\x9da", "\x1b]a", "\x1b\\", "\x1b ", "\u200b"),
]


@pytest.mark.parametrize("unit", REPEATED)
def test_hostile_text_takes_time_in_proportion_to_its_length(unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    redactor = Redactor(["a" * 20 + "b", "secret"])
    began = time.process_time()
    redactor.redact(clean(text))
    assert time.process_time() - began < 1.0  # some 0.02 s; were it quadratic, 5 s and more
