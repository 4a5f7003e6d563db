"""[history] and [home_assistant] of gateway.toml: their defaults, and what is wrong with them."""

from __future__ import annotations

import pytest

from peanutd.config import Config, ConfigError, History, HomeAssistant, parse


def said(text: str) -> Config:
    return parse(text, "gateway.toml", {})


def test_defaults() -> None:
    assert Config().history == said("").history == History(True, "history.db", 14, 366, 0, 5, 20_000)
    assert Config().home_assistant == said("").home_assistant == HomeAssistant(False, "homeassistant", "")


def test_everything_that_there_is() -> None:
    found = said(
        '[history]\nkeep = false\npath = "h.db"\nraw_days = 3\nfive_minutes_days = 30\nhours_days = 3000\n'
        'batch_seconds = 1\nmax_waiting = 7\n[home_assistant]\nenabled = true\nprefix = "ha/x"\ncode_file = "code"\n'
    )
    assert found.history == History(False, "h.db", 3, 30, 3000, 1, 7)
    assert found.home_assistant == HomeAssistant(True, "ha/x", "code")
    assert said("home_assistant.enabled = true").home_assistant.enabled, "one line"
    assert said("[history]\nraw_days = 0\nfive_minutes_days = 0").history.raw_days == 0, "for ever"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[history]\nraw_days = 400", 2, "not be more than five_minutes_days"),
        ("[history]\nraw_days = 0", 2, "not be more than five_minutes_days"),
        ("[history]\nraw_days = -1", 2, "must be 0 to"),
        ("[history]\nbatch_seconds = 0", 2, "must be 1 to"),
        ("[history]\nmax_waiting = 0", 2, "must be 1 to"),
        ('[history]\nkeep = "yes"', 2, "true or false"),
        ('[history]\npath = ""', 2, "name of a file"),
        ("[history]\nraw_day = 1", 2, 'did you mean "raw_days"'),
        ('[home_assistant]\nprefix = "a/#"', 2, "beginning of a topic"),
        ("[home_assistant]\nprefix = 7", 2, "beginning of a topic"),
        ('[home_assistant]\ncode_file = ""', 2, "name of a file"),
        ("home_assistant = true", 1, "must be a table"),
    ],
)
def test_what_is_wrong_is_said(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        said(text)
    assert f"gateway.toml:{line}: " in str(caught.value)
    assert words in str(caught.value)
