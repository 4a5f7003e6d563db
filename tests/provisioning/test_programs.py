"""The witnesses: a test without its program is skipped with the fix as the reason, and fails in CI."""

from pathlib import Path

import pytest

from tests.programs import program


@pytest.fixture
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)


def test_what_is_installed_is_found() -> None:
    assert Path(program("sh")).is_file()


@pytest.mark.usefixtures("_bare")
def test_a_missing_program_skips_and_names_the_package() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"^no-such is not installed: sudo apt-get install no-such$"):
        program("no-such")
    with pytest.raises(pytest.skip.Exception, match=r"install some-package$"):
        program("no-such", "some-package")


@pytest.mark.usefixtures("_bare")
def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such is not installed"):
        program("no-such")
