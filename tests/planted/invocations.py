"""Bugs to plant in invocations: workflows whose steps a caller names."""

from __future__ import annotations

from .plant import Plant, plant, within

STORE = "test_store_invocations"
PAGES = "test_store_invocation_pages"
CALLS = "test_called_steps"
RUN = "test_invocations"

PLANTS: tuple[Plant, ...] = (
    plant(
        "invocations: a key with another request gets the first answer",
        within("state/sqlite_invocations.py", STORE),
        'if row["digest"] != digest:',
        "if False:",
    ),
    plant(
        "invocations: a key is looked for before the transaction only",
        within("state/sqlite_invocations.py", STORE),
        "if key is not None and (first := _replay(c, project, key, digest)) is not None:",
        "if False and (first := _replay(c, project, key or '', digest)) is not None:",
    ),
    plant(
        "invocations: what is to be deleted still answers for its key",
        within("state/sqlite_invocations.py", STORE),
        ' AND s.account = :account""",\n        project=',
        ' AND :account <> \'\'""",\n        project=',
    ),
    plant(
        "invocations: the id of a foreign one is enough",
        within("state/sqlite_invocations.py", STORE),
        "w.id = :id AND s.account = :account",
        "w.id = :id AND :account <> ''",
    ),
    plant(
        "invocations: a key reaches beyond its project",
        within("state/sqlite_invocations.py", STORE),
        "AND (:only IS NULL OR p.id = :only)",
        "AND (:only IS NULL OR 1)",
    ),
    plant(
        "invocations: a page begins with the last one of the page before",
        within("state/sqlite_invocations.py", PAGES),
        "w.session = :session AND w.n < :before",
        "w.session = :session AND w.n <= :before",
    ),
    plant(
        "invocations: filtered ones are numbered among themselves",
        within("state/sqlite_invocations.py", PAGES),
        "enumerate(between))",
        "zip(range(len(rows)), [[row['n']] for row in rows]))",
    ),
    plant(
        "invocations: what took too long has only failed",
        within("state/sqlite_invocations.py", PAGES),
        "WHEN 'timed_out' THEN 'timed_out' ELSE",
        "WHEN 'timed-out' THEN 'timed_out' ELSE",
    ),
    plant(
        "invocations: a gate that nobody answered waits until somebody looks at the session",
        within("state/sqlite_invocations.py", PAGES),
        "gate is None or gate.expires_at is None or gate.expires_at > self._clock.now()",
        "gate is None or gate.expires_at != 0",
    ),
    plant(
        "invocations: one goes to a session that has something active",
        within("state/sqlite_invocations.py", STORE),
        'if session["status"] not in ACTIVE:',
        "if session is not None:",
    ),
    plant(
        "invocations: a half surrogate pair in a request is a crash",
        within("state/sqlite_rows.py", STORE),
        "    except UnicodeEncodeError:",
        "    except ZeroDivisionError:",
    ),
    plant(
        "invocations: a refused plan is run as far as it goes",
        within("engine/runner.py", RUN),
        "if self._claim.plan.refused:",
        "if False:",
    ),
    plant(
        "invocations: a dry run executes",
        within("engine/runner.py", RUN),
        "        if planned.dry_run:\n",
        "        if False:\n",
    ),
    plant(
        "invocations: a dry run asks",
        within("engine/runner.py", RUN),
        "not self._claim.confirmed and not planned.dry_run",
        "not self._claim.confirmed",
    ),
    plant(
        "invocations: the caller's limit replaces a shorter one",
        within("engine/called_steps.py", CALLS),
        "if step.timeout is not None and step.timeout <= seconds:",
        "if False:",
    ),
    plant(
        "invocations: the caller's limit is lost",
        within("engine/called_steps.py", CALLS, RUN),
        "_limited(known[call.call], call.timeout_ms)",
        "_limited(known[call.call], None)",
    ),
    plant(
        "invocations: arguments go into the command",
        within("engine/call_variables.py", RUN),
        "        found[ARGS] = given\n",
        "        found[ARGS] = given.replace(\"'\", '').replace('\"', '')\n",
    ),
    plant(
        "invocations: every called step gets the first one's arguments",
        within("engine/call_variables.py", RUN),
        "folder.args().get(claim.position)",
        "folder.args().get(1)",
    ),
    plant(
        "invocations: what a step printed is passed on with its secrets",
        within("engine/run_folder.py", RUN),
        "safe = self._safe(log, Redactor(self.secrets() or ()))",
        "safe = self._safe(log, Redactor(()))",
    ),
    plant(
        "invocations: what a step printed stays for ever",
        within("engine/run_folder.py", RUN),
        "                output.unlink(missing_ok=True)\n",
        "                output.exists()\n",
    ),
    plant(
        "invocations: a step may refer to a later one",
        within("engine/called_steps.py", CALLS),
        "if call.ref is not None and call.ref not in bound:",
        "if call.ref is not None and call.ref not in {c.bind for c in calls}:",
    ),
    plant(
        "invocations: an alias is given twice",
        within("engine/called_steps.py", CALLS),
        "if call.bind in bound:",
        "if False:",
    ),
    plant(
        "invocations: a name that differs in its case has nothing close to it",
        within("engine/called_steps.py", CALLS),
        "get_close_matches(name.lower()[:MAX_SHOWN]",
        "get_close_matches(name[:MAX_SHOWN]",
    ),
    plant(
        "invocations: a refused one waits for room in its project",
        within("engine/called_steps.py", CALLS, RUN),
        "return Plan(tuple(steps), request=request, refused=tuple(refused))",
        "return Plan(tuple(steps), None, 1, request=request, refused=tuple(refused))",
    ),
    plant(
        "invocations: of a step that was called twice only one log has an address",
        within("tools/workflow_resource.py", RUN),
        "if names.count(address) > 1:",
        "if False:",
    ),
    plant(
        "invocations: the heart beats once",
        within("engine/heart.py", RUN),
        "        if busy():\n",
        "        if not busy():\n",
    ),
)
