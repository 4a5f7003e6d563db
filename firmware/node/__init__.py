"""The firmware of a Peanut node. Rule: what is pure stays pure; app.py and the module of the kind put them together."""

import gc
import sys

VERSION = "0.1.0"
BUILT = 1767225600  # 2026-01-01: before this version was made, and raised with each; no node lives before it


class ConfigError(ValueError):
    """The configuration is wrong; the text is one line a fault, each beginning with the key."""


def forget(*names):
    """Drop modules that are needed at the start or seldom: their room is TLS's. An import brings them back."""
    for name in names:
        sys.modules.pop(name, None)
        parent, _, child = name.rpartition(".")
        if hasattr(sys.modules.get(parent), child):
            delattr(sys.modules[parent], child)
    gc.collect()
