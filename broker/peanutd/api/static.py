"""The app's files, as `make setup` has built them into peanutd/static.

The rule it keeps: they are read once, at the start, so that no request reaches the file system; what Vite names by its
content (/assets/…) is kept for a year by whoever has it, everything else is asked about anew; a path that is no file is
the app's own business, and gets index.html.
"""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

FOLDER: Final = Path(__file__).parent.parent / "static"
IMMUTABLE: Final = "public, max-age=31536000, immutable"
FILE_MAX: Final = 8 << 20
"""Bytes of one file; a larger one is none of the app's."""
PACKED: Final = (("br", ".br"), ("gzip", ".gz"))
"""Content codings, the better ones first, and the ends of the names of files that have them."""

_NOT_BUILT: Final = (
    b"<!doctype html><meta charset=utf-8><title>Peanut</title><h1>Peanut</h1>"
    b"<p>The gateway runs; its app was not built (<code>make setup</code> does that). The API is at /api/v1."
)
mimetypes.add_type("application/manifest+json", ".webmanifest")
mimetypes.add_type("text/javascript", ".js")


@dataclass(frozen=True, slots=True)
class File:
    """A file of the app, in each coding that there is of it ("" is as it is)."""

    kind: str
    codings: dict[str, bytes]
    tag: str


class Static:
    """All files of the app."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, File] = {}
        packed = tuple(end for _, end in PACKED)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and path.suffix not in packed and path.stat().st_size <= FILE_MAX:
                data = path.read_bytes()
                codings = {"": data}
                for coding, end in PACKED:
                    if (other := path.with_name(path.name + end)).is_file():
                        codings[coding] = other.read_bytes()
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                name = path.relative_to(folder).as_posix()
                self._files[name] = File(kind, codings, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        page = File("text/html", {"": _NOT_BUILT}, '"none"')
        self._page = self._files.get("index.html", page)

    def serve(self, request: Request) -> Response:
        """A GET or HEAD of a path that is none of the API's."""
        name = request.path_params.get("path", "")
        file = self._files.get(name, self._page)
        asset = name.startswith("assets/")
        if asset and name not in self._files:
            return Response("there is no such file", 404, media_type="text/plain")  # an old page's: it must not be kept
        headers = {"Cache-Control": IMMUTABLE if asset else "no-cache", "ETag": file.tag, "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        wanted = {word.partition(";")[0].strip() for word in request.headers.get("accept-encoding", "").split(",")}
        coding = next((coding for coding, _ in PACKED if coding in wanted and coding in file.codings), "")
        if coding:
            headers["Content-Encoding"] = coding
        return Response(file.codings[coding], headers=headers, media_type=file.kind)
