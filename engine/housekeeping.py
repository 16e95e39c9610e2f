"""Keeps a store small: old sessions go with their files, where the store's settings say so."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path

import anyio.to_thread

from bilt_mcp.state import SessionStore, StoreLocation, StoreUnavailable

log = logging.getLogger("bilt_mcp.worker")

EVERY_SECONDS = 3600.0


async def keep_house(store: SessionStore, location: StoreLocation, epoch: int) -> None:
    """Prune now and every hour, until cancelled. Trouble is logged, and tried again in an hour."""
    while True:
        try:
            if gone := await prune(store, location, epoch):
                log.info("pruned %d sessions", gone)
        except StoreUnavailable as error:
            log.warning("pruning: %s", error)
        await anyio.sleep(EVERY_SECONDS)


async def prune(store: SessionStore, location: StoreLocation, epoch: int) -> int:
    """Delete the sessions that are over and older than the store keeps them; how many there were."""
    keep = store.settings().keep_milliseconds
    sessions = 0
    if keep is not None:
        before = round(time.time() * 1000) - keep
        while hidden := await store.hide_old(epoch, before):
            sessions += hidden
    # Also what an earlier worker has not got round to.
    while await store.delete_hidden(epoch):
        pass
    while workflow_ids := await store.pruned():
        for workflow_id in workflow_ids:
            await anyio.to_thread.run_sync(_delete, location.run(workflow_id))
        await store.files_gone(workflow_ids)
    return sessions


def _delete(folder: Path) -> None:
    """Delete all of it. Steps may have left anything there; what cannot be deleted must not stop the rest."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    # Caches of modules are read-only, and what is in a folder that may not be written cannot be deleted.
    for path, names, _ in os.walk(folder):
        for name in names:
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("not all of %s could be deleted; its session is gone", folder)


def size_of(folder: Path) -> int:
    """The bytes that the files below a folder take on the disk, links not followed; 0 where there is none."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except OSError:
                continue
    return total
