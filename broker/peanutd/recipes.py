"""Crop recipes: a curve of set points over the day, for each season of the year; and what a node makes of it.

The rule it keeps: a recipe is whole or it is refused, with the reason. Nothing here reads a clock: the day is an
argument. Nodes hold the curve themselves (`control.schedule` of their configuration), so a gateway that is away
changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

MAX_SEASONS: Final = 12
MAX_POINTS: Final = 12
"""Of a day: what a node takes (firmware/node/schedule.py)."""
MAX_TITLE: Final = 80
COLDEST: Final = -10.0
HOTTEST: Final = 45.0
"""°C of a set point. What the node's own limits refuse, it refuses itself."""

_DAY: Final = re.compile(r"(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


class RecipeError(ValueError):
    """What is wrong with a recipe."""


@dataclass(frozen=True, slots=True)
class Season:
    """From a day (`03-01`) until the next season."""

    begins: str
    curve: tuple[tuple[str, float], ...]
    """Time of the day (`06:00`) and set point, in order."""

    @property
    def schedule(self) -> str:
        """As a node wants it: `06:00 18, 20:00 14.5`."""
        return ", ".join(f"{at} {setpoint:g}" for at, setpoint in self.curve)


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    title: str
    seasons: tuple[Season, ...]
    """By the day on which they begin."""

    def on(self, day: date) -> Season:
        """The season of a day: the last that has begun, and before the first one of the year, last year's last."""
        begun = [season for season in self.seasons if season.begins <= f"{day:%m-%d}"]
        return (begun or list(self.seasons))[-1]

    def as_json(self) -> dict[str, Any]:
        """As the API's contract has it, without the name."""
        seasons = [
            {"from": season.begins, "curve": [{"at": at, "setpoint": setpoint} for at, setpoint in season.curve]}
            for season in self.seasons
        ]
        return {"title": self.title, "seasons": seasons}


def parse(name: str, said: Mapping[str, Any]) -> Recipe:
    """A recipe as the API takes it, or as it was stored. RecipeError says what is wrong."""
    title, seasons = said.get("title", name), said.get("seasons")
    if not isinstance(title, str) or len(title) > MAX_TITLE or not title.isprintable():
        raise RecipeError(f"title must be a printable text of {MAX_TITLE} characters at the most")
    if not isinstance(seasons, list) or not 1 <= len(seasons) <= MAX_SEASONS:
        raise RecipeError(f"seasons must be 1 to {MAX_SEASONS} of them")
    found = sorted((_season(season, number) for number, season in enumerate(seasons, 1)), key=lambda one: one.begins)
    if len({season.begins for season in found}) < len(found):
        raise RecipeError("two seasons begin on the same day")
    return Recipe(name, title or name, tuple(found))


def _season(said: object, number: int) -> Season:
    where = f"season {number}"
    if not isinstance(said, dict):
        raise RecipeError(f"{where} must be an object")
    begins, curve = said.get("from"), said.get("curve")
    if not isinstance(begins, str) or not _DAY.fullmatch(begins) or begins in ("02-30", "02-31"):
        raise RecipeError(f'{where}: from must be a day of the year like "03-01"')
    if not isinstance(curve, list) or not 1 <= len(curve) <= MAX_POINTS:
        raise RecipeError(f"{where}: curve must be 1 to {MAX_POINTS} points")
    points: dict[str, float] = {}
    for point in curve:
        at, setpoint = (point.get("at"), point.get("setpoint")) if isinstance(point, dict) else (None, None)
        if not isinstance(at, str) or not _TIME.fullmatch(at):
            raise RecipeError(f'{where}: at must be a time of the day like "06:00"')
        if isinstance(setpoint, bool) or not isinstance(setpoint, int | float) or not COLDEST <= setpoint <= HOTTEST:
            raise RecipeError(f"{where}: setpoint must be {COLDEST:g} to {HOTTEST:g}")
        if at in points:
            raise RecipeError(f"{where}: {at} is there twice")
        points[at] = round(float(setpoint), 2)
    return Season(begins, tuple(sorted(points.items())))
