"""Bugs to plant in resources, prompts, completion and live updates."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "a link in the artifacts is followed",
        within(
            "engine/kept_text.py",
            "test_kept_text.py::test_nothing_outside_the_artifacts_is_read_whatever_is_asked_or_put_there",
        ),
        "os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK",
        "os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK",
    ),
    plant(
        "an artifact is left by two dots",
        within(
            "engine/artifacts.py",
            "test_kept_text.py::test_nothing_outside_the_artifacts_is_read_whatever_is_asked_or_put_there",
        ),
        'or {b".", b".."} & set(parts) ',
        "",
    ),
    plant(
        "what tells a secret is given out once the secret is forgotten",
        within(
            "engine/artifacts.py",
            "test_kept_text.py::test_a_file_that_tells_a_secret_is_withheld_while_it_is_known_and_afterwards",
        ),
        "if file is not None and not _told(path, file, redactor):",
        "if file is not None:",
    ),
    plant(
        "the half of a line that is being written is a line",
        within(
            "engine/kept_text.py",
            "test_kept_text.py::test_of_a_text_that_grows_half_a_line_is_none",
        ),
        '(last != b"\\n" and not growing)',
        '(last != b"\\n")',
    ),
    plant(
        "a range in a private key does not know that it is one",
        within(
            "engine/kept_text.py",
            "test_kept_text.py::test_a_range_begins_to_read_far_enough_before_to_know_a_private_key",
        ),
        "at = max(0, start - LEAD_BYTES)",
        "at = start",
    ),
    plant(
        "a raw log is shown when its secrets are forgotten",
        within(
            "engine/kept.py",
            "test_resources.py::test_a_raw_log_whose_secrets_are_forgotten_is_not_shown",
        ),
        "        return None if values is None else Redactor(values)",
        "        return Redactor(values or ())",
    ),
    plant(
        "ids of other accounts are completed",
        within(
            "state/sqlite_history.py",
            "test_store_history",
        ),
        "WHERE s.account = :account {within}",
        "WHERE 1 {within}",
    ),
    plant(
        "one may listen to what one may not read",
        within(
            "server/live.py",
            "test_live.py::test_only_what_one_may_read_is_listened_to_and_why_not_is_not_told",
        ),
        'subset = asked.model_copy(update={"resource_subscriptions": honoured or None})',
        "subset = asked",
    ),
    plant(
        "who listens is told of every commit",
        within(
            "server/live.py",
            "test_live.py::test_nobody_is_told_of_what_did_not_change",
        ),
        "if uri in self._seen and self._seen[uri] != look.mark:",
        "if uri in self._seen:",
    ),
    plant(
        "the next resident is not told who had subscribed",
        within(
            "server/connection.py",
            "test_offers_stdio.py::test_who_listens_is_told_of_changes_also_after_the_resident_was_killed",
        ),
        '_KEPT = {"initialize", "resources/subscribe", "resources/unsubscribe"}',
        '_KEPT = {"initialize"}',
    ),
    plant(
        "a listener counts for ever",
        within(
            "server/live.py", "test_live.py::test_the_number_of_listeners_is_told_with_the_start"
        ),
        "            self._listeners[session_id] -= 1\n",
        "",
    ),
    plant(
        "a prompt lets its argument be missing",
        within(
            "tools/prompts.py",
            "test_prompts",
        ),
        "if a.required and a.name not in given",
        "if False",
    ),
)
