"""A page of messages becomes an answer that is never longer than it may be, without a server."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from bilt_mcp.state import Message, MessagePage
from bilt_mcp.tools.get_messages import _size, within  # pyright: ignore[reportPrivateUsage]
from bilt_mcp.tools.results import MessageResult, MessagesResult, dumps

WORKFLOW = "11111111-0000-4000-8000-000000000000"
PIECES = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from('"\\/\n\t\r\b\f\x01\x1f\u2028\u202e\U0001f680\U0001f469\u200d\u0301')
    | st.sampled_from('"\\\x01'),
    max_size=30,
)
# Hypothesis hardly ever makes a long text by itself.
CONTENTS = st.tuples(PIECES, st.integers(1, 150)).map(lambda drawn: drawn[0] * drawn[1])


def history_of(contents: Sequence[str]) -> list[Message]:
    """Messages with ids that leave gaps, oldest first."""
    return [
        Message(10 * n + 3, "ai", "success", content, WORKFLOW, "s" * 64, 1_795_300_000_000 + n)
        for n, content in enumerate(contents)
    ]


def page_after(history: Sequence[Message], after: int, limit: int) -> MessagePage:
    rest = [message for message in history if message.id > after]
    newest = history[-1].id if history else 0
    return MessagePage(rest[:limit], len(history), len(rest) > limit, newest)


def page_before(history: Sequence[Message], offset: int, limit: int) -> MessagePage:
    rest = list(reversed(history))[offset:]
    newest = history[-1].id if history else 0
    return MessagePage(rest[:limit], len(history), len(rest) > limit, newest)


def text_of(result: MessagesResult, max_chars: int) -> str:
    text = dumps(result.model_dump(mode="json"))
    assert len(text) <= max_chars
    return text


@settings(deadline=None)
@given(
    contents=st.lists(CONTENTS, max_size=12),
    max_chars=st.integers(500, 3000),
    limit=st.integers(1, 12),
)
def test_following_the_cursor_reads_everything_once_in_answers_that_fit(
    contents: list[str], max_chars: int, limit: int
) -> None:
    history = history_of(contents)
    read: list[int] = []
    after = 0
    while True:
        result = within(page_after(history, after, limit), after, max_chars)
        text_of(result, max_chars)
        read += [message.id for message in result.messages]
        assert result.total == len(history)
        if not result.has_more:
            break
        assert result.messages  # progress
        assert result.next_after > after
        after = result.next_after
    assert read == [message.id for message in history]


@settings(deadline=None)
@given(
    contents=st.lists(CONTENTS, max_size=12),
    max_chars=st.integers(500, 3000),
    limit=st.integers(1, 12),
)
def test_raising_the_offset_by_what_came_reads_everything_once_in_answers_that_fit(
    contents: list[str], max_chars: int, limit: int
) -> None:
    history = history_of(contents)
    read: list[int] = []
    while True:
        result = within(page_before(history, len(read), limit), None, max_chars)
        text_of(result, max_chars)
        read += [message.id for message in result.messages]
        assert result.next_after == (history[-1].id if history else 0)
        if not result.has_more:
            break
        assert result.messages
    assert read == [message.id for message in reversed(history)]


@settings(deadline=None)
@given(
    contents=st.lists(CONTENTS, max_size=12),
    max_chars=st.integers(500, 3000),
    limit=st.integers(1, 12),
)
def test_going_back_by_the_cursor_reads_everything_once_in_answers_that_fit(
    contents: list[str], max_chars: int, limit: int
) -> None:
    history = history_of(contents)
    read: list[int] = []
    left = history
    while True:
        result = within(page_before(left, 0, limit), None, max_chars)
        text_of(result, max_chars)
        read += [message.id for message in result.messages]
        assert (result.next_before > 0) == result.has_more
        if not result.has_more:
            break
        left = [message for message in left if message.id < result.next_before]
        assert result.next_before == read[-1]
    assert read == [message.id for message in reversed(history)]


@settings(deadline=None)
@given(
    content=CONTENTS | st.text(), step=st.none() | st.text(max_size=64), id_=st.integers(1, 2**53)
)
def test_what_a_message_takes_is_known_without_writing_it(
    content: str, step: str | None, id_: int
) -> None:
    found = MessageResult(
        id=id_,
        side="ai",
        variant="log",
        content=content,
        workflow_id=None,
        step=step,
        created_at="T",
    )
    assert _size(found) == len(dumps(found.model_dump(mode="json"))) + 1


@settings(deadline=None)
@given(
    contents=st.lists(CONTENTS, max_size=3),
    max_chars=st.integers(500, 1000),
    read_to=st.integers(1, 10**15),
    newest=st.integers(10**15, 10**16),
    after=st.none() | st.just(0),
)
def test_where_a_search_ended_early_is_told_in_an_answer_that_fits(
    contents: list[str], max_chars: int, read_to: int, newest: int, after: int | None
) -> None:
    messages = history_of(contents)
    page = MessagePage(messages, 10**12, True, newest, read_to=read_to, counted=False)
    result = within(page, after, max_chars)
    text_of(result, max_chars)
    assert (result.has_more, result.total_at_least) == (True, True)
    cut = len(result.messages) < len(messages)
    on = result.messages[-1].id if cut else read_to
    assert (result.next_before, result.next_after) == ((on, newest) if after is None else (0, on))


@settings(deadline=None)
@given(content=CONTENTS, max_chars=st.integers(500, 2000))
def test_a_message_that_fits_is_whole_and_one_that_does_not_says_what_was_cut(
    content: str, max_chars: int
) -> None:
    whole = within(page_after(history_of([content]), 0, 1), 0, 10**9)
    (message,) = within(page_after(history_of([content]), 0, 1), 0, max_chars).messages
    # Room is kept for a next_after and a total of any size, so an answer may stay a little shorter.
    if len(text_of(whole, 10**9)) + 20 <= max_chars:
        assert message.content == content
    elif message.content != content:
        kept, _, mark = message.content.rpartition(" […")
        assert content.startswith(kept)
        assert mark == f"{len(content) - len(kept)} characters cut: raise max_chars]"
        # Cut no more than needed: an escape takes six characters at most, a mark some more digits.
        result = within(page_after(history_of([content]), 0, 1), 0, max_chars)
        assert len(text_of(result, max_chars)) > max_chars - 40
