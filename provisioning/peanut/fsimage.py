"""The file system of a node as bytes: littlefs, as MicroPython on an ESP32 makes and mounts it.

Rule: pure; files in, image out, and back. Of an image only the blocks that hold something are worth writing: the flash
behind the others may say what it likes.
"""

from collections.abc import Mapping
from typing import Any

from peanut.chips import LITTLEFS_BLOCK
from peanut.errors import PeanutError
from peanut.programs import EXTRA

Files = dict[str, bytes]  # path from the root on, without a leading slash

# as ports/esp32 makes it (vfs.VfsLfs2.mkfs), so that the node may go on writing what was begun here
_GEOMETRY = {"read_size": 32, "prog_size": 32, "cache_size": 128, "lookahead_size": 32, "block_cycles": 100}
_MAGIC = b"littlefs"
_MAGIC_AT = 8  # in the first block
PEEK = LITTLEFS_BLOCK  # bytes that tell whether there is a file system
FILES_MAX = 2000
FILE_MAX = 4 * 1024 * 1024


def _module() -> Any:
    try:
        import littlefs
    except ImportError:
        raise PeanutError(
            "the Python package littlefs-python is missing", f"Install what flashing needs: {EXTRA}"
        ) from None
    return littlefs


def build(files: Mapping[str, bytes], size: int) -> dict[int, bytes]:
    """The runs of blocks, by their offset, of a file system of `size` bytes that holds `files`.

    PeanutError if they do not fit.
    """
    littlefs = _module()

    class Watched(littlefs.UserContext):  # type: ignore[name-defined, misc]
        """Memory that remembers which blocks were written."""

        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.written: set[int] = set()

        def prog(self, cfg: Any, block: int, off: int, data: bytes) -> int:
            self.written.add(block)
            return int(super().prog(cfg, block, off, data))

    context = Watched(size)
    try:
        fs = littlefs.LittleFS(
            context=context, block_size=LITTLEFS_BLOCK, block_count=size // LITTLEFS_BLOCK, **_GEOMETRY
        )
        for path in sorted(files):
            folder = path.rpartition("/")[0]
            if folder:
                fs.makedirs(folder, exist_ok=True)
            with fs.open(path, "wb") as file:
                file.write(files[path])
    except littlefs.LittleFSError as error:
        if error.code != littlefs.LittleFSError.Error.LFS_ERR_NOSPC:
            raise
        total = sum(map(len, files.values()))
        raise PeanutError(
            f"the node's files do not fit: {total} bytes, and the file system of the board has {size}",
            "Take a board with more flash.",
        ) from None
    found: dict[int, bytes] = {}
    start = -1
    for block in sorted(context.written):
        at = block * LITTLEFS_BLOCK
        data = bytes(context.buffer[at : at + LITTLEFS_BLOCK])
        if start >= 0 and start + len(found[start]) == at:
            found[start] += data
        else:
            start = at
            found[start] = data
    return found


def is_one(beginning: bytes) -> bool:
    """Whether the first block is that of a littlefs."""
    return beginning[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def unpack(image: bytes) -> Files | None:
    """The files in an image that came from a board; None if it is none, or is damaged."""
    littlefs = _module()
    context = littlefs.UserContext(len(image))
    context.buffer = bytearray(image)
    try:
        fs = littlefs.LittleFS(
            context=context,
            block_size=LITTLEFS_BLOCK,
            block_count=len(image) // LITTLEFS_BLOCK,
            mount=False,
            **_GEOMETRY,
        )
        fs.mount()
        files: Files = {}
        for root, _folders, names in fs.walk("/"):
            for name in names:
                path = f"{root.strip('/')}/{name}".lstrip("/")
                if len(files) >= FILES_MAX or fs.stat(path).size > FILE_MAX:
                    return None
                with fs.open(path, "rb") as file:
                    files[path] = bytes(file.read())
    except (littlefs.LittleFSError, OSError, UnicodeDecodeError):
        return None
    return files
