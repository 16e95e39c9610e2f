"""Bugs to plant in waiting."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "whatever happens to any session wakes all who watch",
        within("state/lookout.py", "test_store_watching", "test_lookout"),
        "return self._unsure or self._newest > self._known",
        "return self._unsure or self._newest > 0",
    ),
    plant(
        "what comes while others are asked for is missed",
        within("state/lookout.py", "test_lookout"),
        "            self._ask_again = True\n            return\n",
        "            return\n",
    ),
    plant(
        "the timer goes on when nobody waits any more",
        within("state/lookout.py", "test_lookout"),
        "        if not self._waiting and not self._watches:\n            self._stop()\n",
        "        return\n",
    ),
    plant(
        "who was cancelled goes on watching",
        within("state/lookout.py", "test_lookout", "test_waiting"),
        "        self._watches.discard(self)\n",
        "",
    ),
    plant(
        "revisions that cannot be read are no news",
        within("state/lookout.py", "test_lookout"),
        "if found is None or self.key not in found:",
        "if found is not None and self.key not in found:",
    ),
    plant(
        "a gate's end is noticed when the wait is over",
        within("tools/waiting.py", "test_waiting"),
        "look_at = min(deadline, now + expires_in(session))",
        "look_at = deadline",
    ),
    plant(
        "a gate whose end cannot be recorded is looked at all the time",
        within("tools/waiting.py", "test_waiting"),
        "    return 0.01 if left > -0.1 else LOOK_AGAIN_SECONDS\n",
        "    return 0.01\n",
    ),
    plant(
        "each client of a resident asks for itself whether the worker lives",
        within("engine/local.py", "test_waiting"),
        "_asked.get(self._location.lock, -ASK_SECONDS)",
        "-ASK_SECONDS",
    ),
    plant(
        "progress counts from when this process took the call",
        within("tools/waiting.py", "test_waiting"),
        "self._since = begun / 1000",
        "self._since = time.time()",
    ),
)
