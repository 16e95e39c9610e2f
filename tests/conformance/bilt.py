"""Our server over HTTP: python -m tests.conformance.bilt PROJECT STORE."""

from __future__ import annotations

import sys

from bilt_mcp.server import Config, create_server

from .serving import serve

if __name__ == "__main__":
    project, store = sys.argv[1:]
    serve(create_server(Config.from_environ(project=project, store=store)).streamable_http_app())
