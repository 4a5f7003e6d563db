"""What a node remembers over a restart: the set point and the count of its boots, in state.json.

Rule: written to a temporary file and renamed, so that a power cut leaves the old or the new, never half of one;
written only when something changed, because flash wears. A file that cannot be read is as good as none, and the log
says so.
"""

import json
import os

from node import log

STATE_JSON = "state.json"
MAX_SIZE = 512  # bytes


class Store:
    def __init__(self, path=STATE_JSON):
        self._path = path
        self._kept = {}
        try:
            with open(path) as f:
                kept = json.loads(f.read(MAX_SIZE))
            if isinstance(kept, dict):
                self._kept = kept
            else:
                raise ValueError("not an object")
        except OSError:
            pass  # the first boot
        except ValueError as e:
            log.warn("store", "%s is damaged (%s): starting from the configuration" % (path, e))

    def number(self, key, low, high, default):
        """The number kept under `key` if it lies within [low, high], else `default`."""
        value = self._kept.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            return default
        return value

    def keeps(self, key, value):
        """Whether `value` is on flash already."""
        return self._kept.get(key) == value

    def put(self, key, value):
        """Keep `value`. Raises OSError if the file system refuses."""
        if self.keeps(key, value):
            return
        kept = dict(self._kept)
        kept[key] = value
        temporary = self._path + ".tmp"
        with open(temporary, "w") as f:
            f.write(json.dumps(kept))
        os.rename(temporary, self._path)
        self._kept = kept
