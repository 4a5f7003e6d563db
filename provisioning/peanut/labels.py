"""A sheet of labels to print and to stick on: the name of each device, and a QR code with the link to its page.

Rule: one file that any browser prints, with nothing in it that is fetched from elsewhere, and no secret.
"""

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from peanut import ledger, settings
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.programs import EXTRA

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Labels</title>
<style>
@page {{ margin: 10mm }}
body {{ font: 11pt sans-serif; display: flex; flex-wrap: wrap; gap: 3mm; margin: 0 }}
figure {{ width: 60mm; height: 30mm; margin: 0; padding: 2mm; box-sizing: border-box; border: 0.2mm dashed #999;
  display: flex; align-items: center; gap: 2mm; break-inside: avoid; overflow: hidden }}
svg {{ flex: none; width: 25mm; height: 25mm }}
figcaption {{ overflow-wrap: anywhere }}
small {{ display: block; color: #444; font-size: 7pt }}
</style>
{labels}
</html>
"""
_LABEL = (
    "<figure>{code}<figcaption><b>{name}</b><small>{kind}, {board}</small><small>{link}</small></figcaption></figure>"
)


@dataclass(frozen=True)
class Label:
    """One label."""

    name: str
    kind: str
    board: str
    link: str


def page(home: Home, name: str) -> str:
    """The link to a device's page in the app, under the name at which phones reach the gateway."""
    known = settings.hosts(home)
    host = known[0] if known else "localhost"
    host = f"[{host}]" if ":" in host else host
    return f"https://{host}:{settings.https_port(home)}/#/device/{name}"


def label(home: Home, row: ledger.Device) -> Label:
    """The label of a device."""
    return Label(row.name, row.kind, row.board, page(home, row.name))


def sheet(labels: Sequence[Label]) -> bytes:
    """The sheet as HTML."""
    try:
        segno = import_module("segno")
    except ImportError:
        raise PeanutError("the Python package segno is missing", f"Install what flashing needs: {EXTRA}") from None
    drawn = []
    for one in labels:
        out = io.BytesIO()
        segno.make(one.link, error="m", micro=False).save(
            out, kind="svg", border=2, xmldecl=False, svgns=True, omitsize=True
        )
        fields = {key: html.escape(getattr(one, key)) for key in ("name", "kind", "board", "link")}
        drawn.append(_LABEL.format(code=out.getvalue().decode().strip(), **fields))
    return _PAGE.format(labels="\n".join(drawn)).encode()
