"""Artifacts as resources: listed and read as text or bytes, and never what tells a secret."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from mcp_types import BlobResourceContents

from .support.builds import build_in
from .support.readers import client_of, contents, refusal, settled, text, told

pytestmark = pytest.mark.anyio

SECRET = "correct-horse-battery"


async def test_artifacts_are_listed_and_read_as_text_or_as_bytes(tmp_path: Path) -> None:
    async with build_in(tmp_path, {"TOKEN": SECRET}) as build, client_of(build) as client:
        build.declare(
            '[[step]]\nname = "make"\nsecrets = ["TOKEN"]\nrun = \'\'\'\ncd $BILT_ARTIFACTS; mkdir dist\n'
            'printf \'{"a": 1}\' > dist/a.json; printf "\\\\0\\\\1\\\\2" > "b c.bin"; echo $TOKEN > told.txt\n'
            "ln -s /etc/passwd link.txt; echo x > $TOKEN\n'''\n"
        )
        workflow_id = await build.start()
        await build.ended()
        await settled(build, workflow_id)
        uri = f"bilt://workflows/{workflow_id}/artifacts"
        listed = await told(client, uri)
        assert SECRET not in str(listed)
        found = {file["name"]: file for file in listed["artifacts"] if file["uri"]}
        assert listed["has_more"] is False
        assert found == {
            "dist/a.json": {
                "name": "dist/a.json",
                "size": 8,
                "mime_type": "application/json",
                "uri": f"{uri}/dist/a.json",
            },
            "b c.bin": {
                "name": "b c.bin",
                "size": 3,
                "mime_type": "application/octet-stream",
                "uri": f"{uri}/b%20c.bin",
            },
        }
        assert await text(client, f"{uri}/dist/a.json") == '{"a": 1}\n'
        blob = await contents(client, f"{uri}/b%20c.bin")
        assert isinstance(blob, BlobResourceContents)
        assert base64.b64decode(blob.blob) == b"\0\1\2"
        for path in ("link.txt", "dist", "dist/../../message.txt", "%2e%2e/message.txt", "no"):
            assert await refusal(client, f"{uri}/{path}") == "Resource not found"
        assert "secrets" in await refusal(client, f"{uri}/told.txt")
        assert "secrets" in await refusal(client, f"{uri}/{SECRET}")


async def test_many_artifacts_make_a_bounded_list(tmp_path: Path) -> None:
    async with build_in(tmp_path) as build, client_of(build) as client:
        build.declare(
            '[[step]]\nname = "make"\nrun = "cd $BILT_ARTIFACTS; for n in $(seq 101 1 350); do : > file$n; done"\n'
        )
        workflow_id = await build.start()
        await build.ended()
        listed = await told(client, f"bilt://workflows/{workflow_id}/artifacts")
        assert [file["name"] for file in listed["artifacts"]] == [
            f"file{n}" for n in range(101, 201)
        ]
        assert listed["has_more"] is True
        assert await text(client, listed["artifacts"][0]["uri"]) == ""
