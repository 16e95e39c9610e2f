"""The whole command line; `__main__` has the short way that most starts take."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import sys
from collections.abc import Sequence

from .config import LOCAL_ACCOUNT, Config, ConfigError
from .relay import Backlog

EPILOG = """\
Without a command it serves MCP on standard input and output, for the project of the current folder.
What a project can run stands in its bilt.toml. The README has configurations for MCP clients.
"""


def run(arguments: Sequence[str], backlog: Backlog | None = None) -> int:
    """Run the program in this process; returns its exit code. `backlog` is what a resident has left undone."""
    if arguments[:1] == ["bench"]:
        # It has options of its own, and nobody else pays for its import.
        from bilt_mcp.bench import main as bench

        return bench(arguments[1:])
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.version:
        print(_version())
        return 0
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    if given.command == "keys" and given.project is not None:
        # Taken for the limit, it would make a key that has none.
        parser.error(
            "with keys, --project comes last and limits a key: keys create NAME --project P"
        )
    # Half of the start-up is the import of the SDK; collecting garbage meanwhile finds none.
    gc.disable()
    if given.command == "serve":
        from .http.serve import serve

        return serve(given)
    import anyio

    try:
        config = Config.from_environ(project=given.project, store=given.store)
    except ConfigError as error:
        print(f"bilt-mcp: {error}", file=sys.stderr)
        return 2
    if given.command == "confirm":
        from .confirm import confirm

        gc.enable()
        return anyio.run(confirm, config, given.session_id)
    if given.command == "keys":
        from .keys import keys

        gc.enable()
        return anyio.run(keys, config, given)
    from .stdio import serve_stdio

    gc.freeze()
    gc.enable()
    # When the client has gone, workflows go on without this process.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        anyio.run(serve_stdio, config, backlog)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bilt-mcp",
        description="Runs build and deploy workflows for LLM agents over MCP, and really stops them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="the versions that matter, and exit")
    parser.add_argument(
        "--no-resident",
        action="store_true",
        help="serve in this process, also where one for all clients of the store could (BILT_RESIDENT=0)",
    )
    _add_places(parser, None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    confirm = commands.add_parser(
        "confirm", help="answer the question of a step that waits for a person"
    )
    confirm.add_argument("session_id", nargs="?", help="default: the project's newest session")
    _add_places(confirm, argparse.SUPPRESS)
    _add_keys(commands.add_parser("keys", help="make, list and revoke keys for use over HTTP"))
    serve = commands.add_parser(
        "serve", help="serve MCP, REST and chat over HTTP; serve --help lists its options"
    )
    _add_serve(serve)
    _add_places(serve, argparse.SUPPRESS)
    commands.add_parser(
        "bench", add_help=False, help="measure on this machine; bench --help lists its options"
    )
    return parser


def _add_places(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--project",
        metavar="DIR",
        default=default,
        help="the folder with bilt.toml (default: BILT_PROJECT or the current folder)",
    )
    _add_store(parser, default)


def _add_store(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--store",
        metavar="PATH",
        default=default,
        help="where sessions are kept: a folder or a .db file (default: BILT_STORE or ~/.bilt)",
    )


def _add_keys(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="keys_command", metavar="COMMAND", required=True)
    create = commands.add_parser(
        "create", help="make a key; it is printed once, and kept by nobody"
    )
    create.add_argument(
        "name", metavar="NAME", help="what the key is called, in lists and in the history"
    )
    create.add_argument(
        "--account",
        metavar="A",
        default=LOCAL_ACCOUNT,
        help="whose projects it is for (default: %(default)s, what stdio uses)",
    )
    create.add_argument("--read-only", action="store_true", help="it may look, and change nothing")
    create.add_argument(
        "--project",
        metavar="P",
        dest="limit",
        help="it is for this project only: a folder, or the id of one of the account's",
    )
    listed = commands.add_parser("list", help="all keys, without what is secret")
    listed.add_argument("--json", action="store_true", help="for programs")
    revoke = commands.add_parser("revoke", help="a key is not good any more, from now on")
    revoke.add_argument("key", metavar="NAME|ID", help="its name, or its id")
    for command in (parser, create, listed, revoke):
        _add_store(command, argparse.SUPPRESS)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--host", metavar="HOST", help="where to listen (default: 127.0.0.1)")
    option("--port", metavar="N", type=int, help="default: 8765; 0: any free one")
    option(
        "--no-auth",
        action="store_true",
        help="no keys: everybody on this machine is its user; on loopback only",
    )
    option(
        "--public-url",
        metavar="URL",
        action="append",
        help="how it is reached through what terminates TLS in front of it; may be repeated",
    )
    option(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        help="pages of this origin may call it, too; may be repeated",
    )
    option(
        "--trusted-proxy",
        metavar="ADDRESS",
        action="append",
        help="whose X-Forwarded-For is believed, with --public-url; an address or a network (default: loopback)",
    )
    option("--tls-cert", metavar="FILE", help="certificate chain, PEM")
    option("--tls-key", metavar="FILE", help="its key, PEM")
    option(
        "--rate",
        metavar="N",
        type=int,
        help="requests a minute of a key (default: 100; 0: no limit)",
    )
    option("--chat-rate", metavar="N", type=int, help="requests a minute of a login (default: 60)")
    option("--oauth-issuer", metavar="URL", help="let in who has an access token of it")
    option("--oauth-audience", metavar="TEXT", help="whom its tokens must be meant for")


def _version() -> str:
    from importlib.metadata import version

    from bilt_mcp.state import SQLITE_VERSION, VERSION, WAL_RESET_NOTE

    python = ".".join(map(str, sys.version_info[:3]))
    with_ = f"MCP SDK {version('mcp')}, SQLite {SQLITE_VERSION}, Python {python}"
    return "\n".join(filter(None, [f"bilt-mcp {VERSION} ({with_})", WAL_RESET_NOTE]))
