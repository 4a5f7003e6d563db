"""psk.toml in the fleet home: keys that the gateway shares with small devices, which have no certificates.

The rule it keeps: the file is readable to its owner alone, a file that is wrong is refused whole with file and line,
and no message has a key in it. Who proves to have a key is `psk/<identity>`, which no certificate, user or token can
be; he is a node only where the operator has said so, with `as`. In the file an identity is a line, so that another one
is added by a line at the end:

    shed-3 = "9f1c…"                                        # at least 16 bytes, in hexadecimal digits; 32 are good
    "tank:1" = { key = "04e7…", as = "plant/tank" }         # for the rules it is that greenhouse; or vin/<VIN>
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from peanutd import toml_file
from peanutd.access import TOKEN_NAME, URI_PREFIX, Credential, Identity, IdentityError, Kind, Psk, by_key, parse_uri
from peanutd.toml_file import ConfigError, kind_of

FILE_NAME: Final = "psk.toml"
MAX_FILE_SIZE: Final = 1024 * 1024
"""Bytes of a psk.toml."""
KEYS_MAX: Final = 4096
"""Keys of a file (PN_PSK_KEYS_MAX in native/psk.h). It is read by the thread that everybody waits for."""
IDENTITY_MAX: Final = 128
"""Bytes of an identity (PN_PSK_IDENTITY_MAX), which is a name as tokens have them: one literal level of a topic."""
KEY_MIN: Final = 16
"""Bytes of a key, at least (PN_PSK_KEY_MIN). A key is no password: who has listened to a handshake may try out as many
as his computers can, so it must be random."""
KEY_MAX: Final = 64
"""Bytes of a key, at most (PN_PSK_KEY_MAX)."""

Keys = Mapping[str, Psk]
"""By identity."""
NO_KEYS: Final[Keys] = MappingProxyType({})
_ENTRY: Final = ("key", "as")
_SECRET: Final = re.compile(rf"[0-9A-Fa-f]{{{2 * KEY_MIN},}}")
"""What may be a key, wherever it stands."""


def load(home: Path) -> Keys:
    """The keys of a fleet home, none where there is no file. ConfigError when it is wrong, or others may read it."""
    path = home / FILE_NAME
    text = toml_file.read(path, MAX_FILE_SIZE, private=True)
    return NO_KEYS if text is None else parse(text, str(path))


def parse(text: str, path: str) -> Keys:
    """The keys in `text`. `path` is for the messages of ConfigError, which names every mistake."""
    try:
        document, lines = toml_file.parse(text, path)
    except ConfigError as error:
        raise ConfigError(path + _veiled(str(error).removeprefix(path))) from None
    if len(document) > KEYS_MAX:
        raise ConfigError(f"{path}: {len(document)} keys; at most {KEYS_MAX}")
    found: dict[str, Psk] = {}
    owners: dict[bytes, str] = {}
    mistakes: list[tuple[int, str]] = []
    for identity, entry in document.items():
        try:
            one = _entry(identity, entry)
            if (other := owners.setdefault(one.key, identity)) != identity:
                raise ValueError(f'has the key of "{other}": either could be the other; give each its own')
            found[identity] = one
        except ValueError as error:
            line = lines.get((identity,), 1)
            mistakes.append((line, f"{path}:{line}: " + _veiled(f'"{identity[:IDENTITY_MAX]}" {error}')))
    if mistakes:
        raise ConfigError("\n".join(text for _, text in sorted(mistakes)))
    return MappingProxyType(found)


def identify(keys: Keys, proved: bytes) -> Credential:
    """Whose identity this is, which a handshake by these keys has proved. IdentityError: nobody's."""
    one = keys.get(proved.decode("ascii", "replace"))
    if one is None:
        raise IdentityError("no key of this gateway")
    return by_key(one)


def _veiled(text: str) -> str:
    """What a message may say, which goes to the log: by mistake a key stands where a name should."""
    return _SECRET.sub("…", text)


def _entry(identity: str, entry: Any) -> Psk:
    """One line. ValueError says what is wrong with it, and has nothing of the key."""
    if not TOKEN_NAME.fullmatch(identity):
        raise ValueError(
            f"is not an identity: letters, digits and . _ @ | : - behind the first, at most {IDENTITY_MAX} characters"
        )
    table = entry if isinstance(entry, dict) else {"key": entry}
    if unknown := [key for key in table if key not in _ENTRY]:
        raise ValueError(f"has an unknown {unknown[0][:IDENTITY_MAX]}; known here: {', '.join(_ENTRY)}")
    return Psk(identity, _key(table.get("key")), _who(identity, table.get("as")))


def _key(value: object) -> bytes:
    usage = "write it in hexadecimal digits, e.g. what `openssl rand -hex 32` prints"
    if not isinstance(value, str):
        raise ValueError(f"has no key; {usage}" if value is None else f"needs its key in quotes; {usage}")
    if not re.fullmatch(r"([0-9A-Fa-f]{2})*", value):
        raise ValueError(f"has a key that cannot be read; {usage}")
    key = bytes.fromhex(value)
    if not KEY_MIN <= len(key) <= KEY_MAX:
        raise ValueError(f"has a key of {len(key)} bytes; it must be {KEY_MIN} to {KEY_MAX}; {usage}")
    return key


def _who(identity: str, value: object) -> Identity:
    """Who has the key is, for the rules: himself, or the node that `as` names."""
    if value is None:
        return Identity(Kind.PSK, identity)
    try:
        if isinstance(value, str) and (who := parse_uri(URI_PREFIX + value)).kind is not Kind.OPERATOR:
            return who
    except IdentityError:
        pass
    shown = f'"{value[:IDENTITY_MAX]}"' if isinstance(value, str) else kind_of(value)
    raise ValueError(f'is to be {shown}; as = "plant/NAME" or "vin/VIN" names a node, and left out it is itself')
