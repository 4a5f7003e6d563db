"""The firmware of a Peanut node. Rule: what is pure stays pure; assembly.py and the profile put the parts together."""

import gc
import sys

VERSION = "0.1.0"
BUILT = 1767225600  # 2026-01-01: before this version was made, and raised with each; no node lives before it


class ConfigError(ValueError):
    """The configuration is wrong; the text is one line a fault, each beginning with the key."""


_guests = ()  # the modules that were borrowed last


def borrow(*names):
    """The first of these modules, which are seldom needed; the others are what it needs itself. They stay in memory
    until others are borrowed, or none: there is room for one of these groups only."""
    global _guests
    if names != _guests:
        forget(*_guests)
        _guests = names
    if names:
        __import__(names[0])
        return sys.modules[names[0]]
    return None


def say(at):
    """The text that begins there in the file of texts; "?" if it cannot be read. `peanut` puts it where a text of ours
    was that is seldom told, for those have no room in memory. Never raises."""
    try:
        with open(__path__ + "/texts", "rb") as f:
            f.seek(at)
            return f.readline()[:-1].decode()
    except Exception:
        return "?"


def forget(*names):
    """Drop modules that are needed at the start only, or seldom. An import brings them back."""
    for name in names:
        sys.modules.pop(name, None)
        parent, _, child = name.rpartition(".")
        if hasattr(sys.modules.get(parent), child):
            delattr(sys.modules[parent], child)
    gc.collect()
