"""What is kept of a workflow's steps when it is over."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from bilt_mcp.engine.run_folder import RunFolder
from bilt_mcp.state import StoreLocation


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\x1b[0m"])
def test_a_log_has_its_last_line_also_where_that_has_no_newline(tmp_path: Path, end: str) -> None:
    location = StoreLocation.of(tmp_path / "store")
    location.prepare()
    folder = RunFolder(location, str(uuid4()))
    folder.create({}, [], {})
    folder.write_message("go")
    raw = folder.path / "01.1.head"
    raw.write_bytes(f"first\nlast{end}".encode())
    folder.make_logs_safe()
    assert (folder.path / "01.1.log").read_text() == "first\nlast\n"
    assert not raw.exists()
