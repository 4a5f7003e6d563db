"""What a node remembers over a restart: the set point and the count of its boots, in state.json.

Rule: written to a temporary file and renamed, so that a power cut leaves the old or the new, never half of one;
written only when something changed, because flash wears. On a chip its second home is NVS, apart from the file system
that a brown-out can spoil. What cannot be read in either is as good as none, and the log says so.
"""

import json
import os

from node import log

STATE_JSON = "state.json"
MAX_SIZE = 512  # bytes


class Store:
    def __init__(self, path=STATE_JSON, nvs=None):
        """nvs: esp32.NVS or its like, or None."""
        self._path = path
        self._nvs = nvs
        self._kept = {}
        for first in (True, False):
            try:
                kept = json.loads(self._read(first))
                kept.get("")  # or it is no table
                self._kept = kept
                break
            except OSError:
                pass  # the first boot
            except (ValueError, AttributeError) as e:
                log.warn("store", "%s is damaged (%s)" % (path, e))

    def _read(self, first):
        if first:
            with open(self._path) as f:
                return f.read(MAX_SIZE)
        if self._nvs is None:
            return "{}"
        buf = bytearray(MAX_SIZE)
        return bytes(buf[: self._nvs.get_blob("state", buf)])

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
        data = json.dumps(kept).encode()
        replace(self._path, data)
        self._kept = kept
        try:
            if self._nvs is not None:
                self._nvs.set_blob("state", data)
                self._nvs.commit()
        except OSError as e:
            log.warn("store", "NVS refuses (%s)" % e)


def replace(path, data):
    """The file holds `data` (bytes) now, or what it held before. Raises OSError."""
    with open(path + ".tmp", "wb") as f:
        f.write(data)
    os.rename(path + ".tmp", path)


def read(path):
    """What is in the file. Raises OSError."""
    with open(path, "rb") as f:
        return f.read()
