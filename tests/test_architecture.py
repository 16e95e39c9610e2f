"""How the house is built, held: who may import whom, who may do what, and what may be committed.

Import rules are checked here by reading the source, and by import-linter (tests/test_lint.py),
which also follows chains of imports. CONTRIBUTING.md says them in words.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "bench": {"server", "tools", "engine", "state"},
    "server": {"tools", "engine", "state"},
    "tools": {"state"},
    "engine": {"state"},
    "state": set(),
}

NOT_INSTALLED = Path("bench", "peers")
"""Scripts that only a checkout has: they import each other by plain names, and the package as anybody's scripts do."""

COMMAND_LINE = Path("server", "command.py")
"""The only file that imports the bench, and only when somebody asks for it."""

MAX_LINES = 400
LONGER: dict[str, str] = {}
"""Files that may be longer, each with the reason why it is one idea and not two."""

STARTS_PROCESSES = {
    *("Popen", "create_subprocess_exec", "create_subprocess_shell", "open_process", "run_process"),
    *("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "kill", "killpg"),
    *("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"),
}
STARTS_ITSELF = {Path("server/joining.py"): {"os.fork", "os.execve"}}
"""The small process of a client starts the resident, which is the server; it may load nothing of the engine."""
READS_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}

HOSTS = {
    *("127.0.0.1", "0.0.0.0", "localhost", "github.com", "modelcontextprotocol.io"),
    *("keepachangelog.com", "semver.org", "json-schema.org", "www.w3.org", "docs.python.org"),
    *("api.bctrl.ai", "platform.bctrl.ai"),  # docs/seeds: a page that is kept as it is
}
"""Hosts that a tracked file may name, beside the reserved example names of RFC 2606."""


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is committed, or would be by `git add .`; relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = sorted({Path(name) for name in listed.stdout.split("\0") if name})
    return tuple(file for file in files if (ROOT / file).is_file())


def folder_of(file: Path) -> str:
    """The folder whose rules a file is held to."""
    return str(NOT_INSTALLED) if NOT_INSTALLED in file.parents else file.parts[0]


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for file in tracked():
        if file.suffix == ".py" and (not folders or folder_of(file) in folders):
            yield file, parsed(file)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), str(file))


def imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str, tuple[str, ...]]]:
    """Every import as (statement, module, names); the module of a relative one keeps its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node, module, tuple(alias.name for alias in node.names)


@cache
def offered(folder: str) -> frozenset[str]:
    """The names in `__all__` of the folder's `__init__`."""
    for node in parsed(Path(folder, "__init__.py")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def uses(tree: ast.Module, names: set[str], *modules: str) -> Iterator[str]:
    """Where one of the names is taken from one of the modules, as `line: os.environ`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules and node.attr in names:
                yield f"{node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                if alias.name in names:
                    yield f"{node.lineno}: {node.module}.{alias.name}"


def is_below(file: Path, module: str) -> bool:
    """Whether it is a module of a sub-folder that imports one of the folder above, which it has to spell out."""
    return len(file.parts) > 2 and module.startswith(f"bilt_mcp.{file.parts[0]}.")


def test_imports_go_one_way() -> None:
    wrong: list[str] = []
    for file, tree in sources(*MAY_IMPORT):
        for node, module, names in imports(tree):
            head, _, rest = module.partition(".")
            if head == "bilt_mcp":
                targets = {rest.split(".")[0]} if rest else set(names)
                allowed = MAY_IMPORT[file.parts[0]]
                if is_below(file, module):
                    continue
                if file == COMMAND_LINE and node not in tree.body:
                    allowed = allowed | {"bench"}
                if not targets <= allowed:
                    wrong.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


def test_across_folders_only_what_the_folder_offers() -> None:
    wrong: list[str] = []
    for file, tree in sources(*MAY_IMPORT, "examples"):
        for node, module, names in imports(tree):
            if module.split(".")[0] == "bilt_mcp" and not is_below(file, module):
                _, *path = module.split(".")
                if len(path) != 1 or not names or not set(names) <= offered(path[0]):
                    wrong.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


def test_a_dot_means_this_folder() -> None:
    wrong = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file, tree in sources()
        for node, module, _ in imports(tree)
        if module.startswith("..")
        or (module.split(".")[:2] == ["bilt_mcp", folder_of(file)] and not is_below(file, module))
    ]
    assert wrong == []


def test_no_folder_is_imported_under_its_bare_name() -> None:
    wrong = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file, tree in sources()
        for node, module, _ in imports(tree)
        if module.split(".")[0] in MAY_IMPORT
    ]
    assert wrong == []
    assert sys.modules.keys() & MAY_IMPORT.keys() == set()


def test_outside_the_checkout_there_is_only_bilt_mcp(tmp_path: Path) -> None:
    script = (
        "import importlib, importlib.util\n"
        f"for name in {sorted(MAY_IMPORT)}:\n"
        "    importlib.import_module('bilt_mcp.' + name)\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_the_server_reads_the_environment() -> None:
    wrong = [
        f"{file}:{use}"
        for file, tree in sources("engine", "state", "tools")
        for use in uses(tree, READS_ENVIRONMENT, "os")
    ]
    assert wrong == []


def test_only_the_engine_starts_and_signals_processes() -> None:
    wrong = [
        f"{file}:{use}"
        for file, tree in sources("server", "state", "tools")
        for use in uses(tree, STARTS_PROCESSES, "os", "subprocess", "asyncio", "anyio")
        if use.split(": ")[1] not in STARTS_ITSELF.get(file, set())
    ]
    assert wrong == []


def test_every_folder_with_code_is_packaged() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    with_code = {".".join(["bilt_mcp", *file.parent.parts]) for file, _ in sources(*MAY_IMPORT)}
    assert with_code == set(pyproject["tool"]["setuptools"]["packages"])


def test_files_stay_small() -> None:
    long = {
        str(file)
        for file, _ in sources()
        if len((ROOT / file).read_text(encoding="utf-8").splitlines()) > MAX_LINES
    }
    assert long == LONGER.keys()


def test_the_map_of_the_http_server_names_every_module() -> None:
    known = set(
        re.findall(r"\w+", ast.get_docstring(parsed(Path("server/http/__init__.py"))) or "")
    )
    modules = {path.stem for path in (ROOT / "server" / "http").glob("*.py")} - {"__init__"}
    assert modules <= known


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see https://github.com/x and http://127.0.0.1:8000/mcp", []),
        ("https://shop.example/ and https://api.example.com:443/", []),
        (f"index = https://mirror.{'somewhere'}.net/simple", ["mirror.somewhere.net"]),
        (f"in {ROOT}/state", [str(ROOT)]),
        (f"from {Path.home()}/notes", [f"{Path.home()}/"]),
    ],
)
def test_what_gives_a_workplace_away_is_seen(text: str, found: list[str]) -> None:
    assert list(given_away(text)) == found


def test_nothing_tracked_names_a_workplace() -> None:
    """No registry or other host that we did not choose to name, and no path of this machine."""
    wrong: list[str] = []
    for file in tracked():
        try:
            text = (ROOT / file).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong.extend(f"{file}: {found}" for found in given_away(text))
    assert wrong == []


def given_away(text: str) -> Iterator[str]:
    for host in re.findall(r"https?://(?:[^/\s@]*@)?([a-z0-9-]+(?:\.[a-z0-9-]+)+)", text, re.I):
        reserved = re.search(r"(^|\.)(example|test|invalid|example\.(com|org|net))$", host)
        if host not in HOSTS and not reserved:
            yield host
    for path in (str(ROOT), f"{Path.home()}/"):
        if path in text:
            yield path
