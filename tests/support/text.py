"""Text of the kinds that builds write, hostile ones among them."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st

SECRET = "hunter2/S3cr+t=pass word"

# Written in two parts, so that no scanner takes this file for a leak.
TOKENS = {
    "GitHub": "gh" + "p_" + "a1B2c3D4e5F6" * 3,
    "GitHub app": "gh" + "s_" + "a1B2c3D4e5F6" * 3,
    "GitHub fine-grained": "github_" + "pat_" + "11ABCDEFG0" * 4 + "_x" * 20,
    "GitLab": "gl" + "pat-" + "xYz12_-345" * 2,
    "AWS key id": "AK" + "IA" + "IOSFODNN7EXAMPLE",
    "AWS session key id": "AS" + "IA" + "IOSFODNN7EXAMPLE",
    "Slack": "xox" + "b-" + "123456789012-abcdefABCDEF",
    "Stripe": "sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "npm": "npm" + "_" + "a1B2c3D4e5F6" * 3,
    "PyPI": "pypi" + "-" + "AgEIcHlwaS5vcmcCJD" * 4,
    "OpenAI": "sk" + "-proj-" + "abc123DEF456" * 4,
    "Anthropic": "sk" + "-ant-api03-" + "abc123DEF456_-" * 4,
    "Google": "AI" + "za" + "SyA1234567890abcdefghijklmnopqrstuv",
    "JWT": "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "bilt": "bilt_" + "live_" + "0123456789abcdef",
}


def is_forbidden(char: str) -> bool:
    """Go by Unicode's own tables, not by those of the filter."""
    point = ord(char)
    if char in "\n\t":
        return False
    if unicodedata.category(char) == "Cf":
        # Format characters that are seen: signs before numbers in Arabic, Syriac and Kaithi,
        # and the joiners that build up a hieroglyph.
        seen = (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)
        return point not in seen and not 0x13430 <= point <= 0x1345F
    return (
        unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        or 0xFE00 <= point <= 0xFE0F
        or 0xE0000 <= point <= 0xE0FFF
        or point & 0xFFFE == 0xFFFE
        or 0xFDD0 <= point <= 0xFDEF
        or char in "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u3164\uffa0"
    )


ESCAPES = [
    *("\x1b", "\x1b[", "\x1b[31", "\x1b[1;31m", "\x1b[1G", "\x9b", "\x9b2K"),
    *("\x1b]0;t", "\x1b]8;;http://x\x07", "\x1b\\", "\x07", "\x9d0;t\x9c"),
    *("\x1bP", "\x1b_x\x1b\\", "\x1b(B"),
]
PIECES_OF_TEXT = st.one_of(
    st.sampled_from(ESCAPES),
    st.sampled_from("\u200b\u202e\ufe0f\U000e0041\ufeff\u2028\x85\x00\x7f"),
    st.sampled_from(["\r", "\n", "\r\n", *"\t é😀[mG0", "text", "::", "://a:b@c"]),
    st.characters(exclude_categories=["Cs"]),
)
HOSTILE_TEXT = st.lists(PIECES_OF_TEXT, max_size=30).map("".join)
