"""The C tests of the core (tests/broker/core, tests/fuzz) as pytest cases.

Proves that every C test program builds with the sanitizers and passes, and that every fuzz target survives the seeds
made of the vectors. A failure shows what the program printed.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "ctests"
FUZZ = ROOT / "build" / "fuzz"
PROGRAMS = sorted(path.stem for path in (ROOT / "tests" / "broker" / "core").glob("test_*.c"))
TARGETS = sorted(path.stem for path in (ROOT / "tests" / "fuzz").glob("fuzz_*.c"))


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Runs a program to its end; fails with its output when it ends badly or takes more than 250 seconds."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=250, check=False)
    if done.returncode:
        pytest.fail(f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


def make(folder: str, *words: str) -> None:
    run("make", "-s", "-C", ROOT / "tests" / folder, f"PYTHON={sys.executable}", *words)


@pytest.mark.parametrize("program", PROGRAMS)
def test_c(program: str) -> None:
    """One program of tests/broker/core; see there for what each of its cases proves."""
    make("broker/core", program, "vectors")
    run(BUILD / program, cwd=BUILD)


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz_target_survives_its_seeds(target: str) -> None:
    """The fuzz target, built without clang, over every seed: the vectors, and what fuzzing once found."""
    make("fuzz", f"{target}-seeds")


def test_the_makefiles_know_every_program() -> None:
    """A C test that is written but not run proves nothing."""
    assert "test_packet" in PROGRAMS
    assert "fuzz_packet" in TARGETS
