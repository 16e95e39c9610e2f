"""Our tasks extension over HTTP, with the suite's own tools as its tasks."""

from __future__ import annotations

from tests.support.task_fixtures import task_server

from .serving import serve

if __name__ == "__main__":
    serve(task_server().streamable_http_app())
