"""An update on its way: chunks in, files out, each file held to the SHA-256 that the signed manifest vouches for.

Rule: what is received lies in the spare slot and is nobody's application before the last file of it has been read back
whole. What was received before a reset is read again and not asked for again, if the same update is offered; anything
else in the slot is removed first, so that no file of another version is ever among them. Files only: no network, no
clock but the argument. In memory only while an update is received (see node.forget).

The update is a stream: the index (a line `sha256 size path` for each file), then the files, in that order. The node
asks for a place in it, and gets at most WINDOW chunks of CHUNK bytes from there on.
"""

import binascii
import hashlib
import os

from node import store
from node.ticks import diff

CHUNK = 1024  # bytes; 8 more are its head: the update (4 bytes of the offer's SHA-256) and its place in the stream
HEAD = 8
WINDOW = 4  # chunks in answer to one question
ASK_MS = 10000  # without a chunk, before it is asked again
SOON_MS = 500  # and after one that did not fit
QUIET_MS = 3600000  # without a byte, before it is given up: its helpers shall not stay in memory for ever
DAMAGED = 3  # times that one file may come damaged

OFFER = "offer"
INDEX = "index"


def offer_id(offer):
    """What the chunks of an update begin with."""
    return hashlib.sha256(offer).digest()[:4]


class Receiver:
    """stage: "receiving"; then "ready", or "failed" for the reason `why`. news: there is something to tell."""

    def __init__(self, offer, manifest, store_, now):
        """offer: its bytes; manifest: as node.offer judged it; store_: Files or node.image.Partition."""
        self.id = offer_id(offer)
        self.seq = manifest["seq"]
        self.version = manifest["version"]
        self.stage = "receiving"
        self.why = None
        self.news = False
        self.size = manifest["size"]
        self.at = 0  # the place in the stream from which on something is missing
        self._index = manifest["index"]
        self._sha = manifest["sha256"]
        self._store = store_
        self.slot = store_.slot
        self._offer = offer
        self._lines = None  # the index, once it is whole
        self._part = None  # (path, size, sha256) of what is being received; None while the slot is cleared
        self._got = 0  # bytes of it
        self._asked = self._heard = now
        self._left = 0  # bytes of the answer to come
        self._damaged = 0
        self._soon = False
        if store_.offered() == offer:
            self._next()

    def told(self):
        """For <root>/ota/status; with stage "receiving" it is the question for more."""
        body = {"stage": self.stage, "offer": self.seq, "at": self.at + self._got, "of": self.size}
        if self.why:
            body["why"] = self.why
        if self.stage == "receiving":
            self.why = None
        return body

    def step(self, now):
        """A small piece of what is to be done without the gateway: one file removed, or read back. True: soon again."""
        try:
            if self.stage == "failed":
                return self._store.clear()  # the room is the readings' now
            if self.stage == "ready":
                return False
            if self._part is None:
                if not self._store.clear():
                    self._store.begin(self._offer)
                    self._next()
                return True
            if not self._got and self._store.good(self._part):
                self.at += self._part[1]
                self._next()
                return True
        except OSError as e:
            self.give_up("flash: %s" % e)
        if diff(now, self._heard) > QUIET_MS:
            self.give_up("nobody sends it")
            return True
        if self._left <= 0 or diff(now, self._asked) > (SOON_MS if self._soon else ASK_MS):
            self._left = CHUNK * WINDOW
            self._asked = now
            self._soon = False
            self.news = True
        return False

    def chunk(self, data, now):
        """A chunk came. data: bytes-like, valid until this returns."""
        if self.stage != "receiving" or self._part is None:
            return None
        place = int.from_bytes(bytes(data[4:HEAD]), "big")
        if len(data) <= HEAD or len(data) > HEAD + CHUNK or bytes(data[:4]) != self.id:
            return self._odd("a chunk of another update")
        if place != self.at + self._got:
            return self._odd("a chunk of %d, %d was asked for" % (place, self.at + self._got))
        data = data[HEAD:]
        self._asked = self._heard = now
        self._left -= len(data)
        try:
            while data:
                n = min(len(data), self._part[1] - self._got)
                self._store.put(self._part, self._got, data[:n])
                self._got += n
                data = data[n:]
                if self._got == self._part[1] and not self._finish():
                    return None
                if self.stage != "receiving":
                    return None
        except OSError as e:
            self.give_up("flash: %s" % e)
        return None

    def _odd(self, why):
        self.why = self.why or why
        self._soon = True

    def _finish(self):
        """The last byte of a part is here. False: it is to come again."""
        self._store.end()
        self._got = 0
        if self._store.good(self._part):
            self._damaged = 0
            self.at += self._part[1]
            self._next()
            return True
        self._damaged += 1
        self.why = "damaged: " + self._part[0]
        if self._damaged >= DAMAGED:
            self.give_up(self.why)
        self._left = 0
        return False

    def _next(self):
        """On to the next part."""
        if self._part is None:
            self._offer = None
            self._part = (INDEX, self._index, self._sha)
            return None
        if self._lines is None:
            self._lines = self._store.index()
        line = self._lines.readline().strip()
        if not line:
            self._lines.close()
            if self.at != self.size:
                return self.give_up("format: the index is not that of the manifest")
            self.stage = "ready"
            self.news = True
            return None
        sha, size, path = line.split(" ", 2)
        if path[0] == "/" or ".." in path:
            return self.give_up("format: " + path)
        self._part = (path, int(size), sha)
        return None

    def give_up(self, why):
        """The end of it; what was received is removed."""
        self.stage = "failed"
        self.why = why
        self.news = True
        try:
            self._store.end()
        except OSError:
            pass


class Files:
    """A slot as the place for an update: a folder of files."""

    def __init__(self, slot):
        self.slot = slot
        self._slot = slot + "/"
        self._file = None

    def offered(self):
        """The offer that what is in the slot belongs to, or None."""
        try:
            with open(self._slot + OFFER, "rb") as f:
                return f.read()
        except OSError:
            return None

    def clear(self):
        """Remove one file; False when there is none left. The offer goes first: what is left belongs to nothing."""
        try:
            os.remove(self._slot + OFFER)
            return True
        except OSError:
            return _remove(self.slot)

    def begin(self, offer):
        os.mkdir(self.slot)
        store.replace(self._slot + OFFER, offer)

    def index(self):
        return open(self._slot + INDEX)

    def good(self, part):
        """Whether it is on flash, whole: read back, not remembered."""
        path, size, sha = part
        try:
            with open(self._slot + path, "rb") as f:
                return f.seek(0, 2) == size and not f.seek(0) and digest(f.readinto) == sha
        except OSError:
            return False

    def put(self, part, at, data):
        """The next bytes of a part, which begins anew with at = 0."""
        if not at:
            self.end()
            folder = self._slot
            for name in part[0].split("/")[:-1]:
                folder += name
                try:
                    os.mkdir(folder)
                except OSError:
                    pass
                folder += "/"
            self._file = open(self._slot + part[0], "wb")  # noqa: SIM115
        self._file.write(data)

    def end(self):
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def digest(readinto):
    """SHA-256, in hexadecimal, of what readinto(buffer) -> n gives."""
    h = hashlib.sha256()
    buffer = memoryview(bytearray(512))
    while True:
        n = readinto(buffer)
        if not n:
            return binascii.hexlify(h.digest()).decode()
        h.update(buffer[:n])


def _remove(path):
    """Remove one file or one empty folder, `path` itself last; False if there is none."""
    try:
        names = os.listdir(path)
    except OSError:
        try:
            os.remove(path)
            return True
        except OSError:
            return False
    for name in names:
        if _remove(path + "/" + name):
            return True
    os.rmdir(path)
    return True
