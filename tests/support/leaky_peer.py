"""A driver of no peer at all: it kills the process group of its job, and so leaves who left the group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time


def main() -> None:
    process: subprocess.Popen[bytes] | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic_ns()
        if asked["op"] == "start":
            job = asked["job"]
            process = subprocess.Popen(
                job["argv"],
                cwd=job["cwd"],
                env={**os.environ, **job["env"]},
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        elif asked["op"] == "cancel":
            assert process is not None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(json.dumps({"began": began, "answered": time.monotonic_ns()}), flush=True)
        if asked["op"] == "close":
            break


if __name__ == "__main__":
    main()
