"""What every process of ours agrees on."""

VERSION = "0.1.0"
"""This program's; `pyproject.toml` says the same, and a test holds them equal."""

IDLE_SECONDS = 60.0
"""How long a background process stays without work; BILT_WORKER_IDLE says otherwise."""
