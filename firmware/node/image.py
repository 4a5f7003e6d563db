"""A whole MicroPython image as an update: received into the second slot of an -OTA image, and tried once.

Rule: index and signature are those of an application (node/receive.py); the path of a part is its place in the image.
The boot loader itself goes back to the image before this one at the first start after the trial in which nobody said
that all is well: a trial has one start, and power that is cut meanwhile ends it. In memory only while an image is
received or on trial (see node.forget).
"""

import choice

from node.receive import Files, digest

FOLDER = "image"  # of offer and index
TRIAL = "trial"


def _running():
    from esp32 import Partition

    return Partition(Partition.RUNNING)


class Image(Files):
    """The partition for the next image, as node.receive.Receiver wants a place for an update."""

    def __init__(self, running=None):
        """running: the esp32.Partition that runs, or its like. Raises ValueError where there is no second one."""
        super().__init__(FOLDER)
        try:
            self._partition = (running or _running()).get_next_update()
        except (ImportError, OSError):
            raise ValueError("image: this board has one slot for images only")
        self._block = self._partition.ioctl(5, 0)

    def fits(self, size):
        """Whether an image of `size` bytes has room."""
        return size <= self._partition.ioctl(4, 0) * self._block

    def good(self, part):
        path, size, sha = part
        if not path.isdigit():
            return super().good(part)
        at = int(path)
        end = at + size

        def readinto(buffer):
            nonlocal at
            n = min(len(buffer), end - at, self._block - at % self._block)
            if n:
                self._partition.readblocks(at // self._block, buffer[:n], at % self._block)
                at += n
            return n

        return digest(readinto) == sha

    def put(self, part, at, data):
        if not part[0].isdigit():
            return super().put(part, at, data)
        at += int(part[0])
        while data:
            block, off = at // self._block, at % self._block
            n = min(len(data), self._block - off)
            if not off:
                self._partition.ioctl(6, block)  # erased here, for what is written at a place in a block erases nothing
            self._partition.writeblocks(block, data[:n], off)
            at += n
            data = data[n:]
        return None

    def begin_trial(self, seq, version):
        """The next start is that of the new image. Raises OSError, also where the image does not check."""
        s = choice.read()
        s["image"] = [self._partition.info()[4], seq, version, TRIAL]
        choice.write(s)
        self._partition.set_boot()


def on_trial(s, running=None):
    """Whether the image that runs is on trial. s: choice.read(). One that the boot loader has taken back is `gone`."""
    image = s.get("image")
    if not image or image[3] != TRIAL:
        return False
    if (running or _running()).info()[4] == image[0]:
        return True
    s["gone"] = [image[1], image[4] if len(image) > 4 else "image: the boot loader returned to the one before"]
    s["image"] = ["", 0, "", ""]
    choice.write(s)
    return False


def commit(running=None):
    """The image on trial is in force: the boot loader keeps it."""
    (running or _running()).mark_app_valid_cancel_rollback()
    s = choice.read()
    s["image"][3] = "run"
    s.pop("gone", None)
    choice.write(s)


def give_up(why):
    """The image on trial is to go: the boot loader does that at the next reset."""
    s = choice.read()
    s["image"].append(why)
    try:
        choice.write(s)
    except OSError:
        pass  # it goes all the same
