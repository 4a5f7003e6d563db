"""Certificates that have been judged before: a fleet's nodes come again with the same ones.

The rule it keeps: what is remembered is what `access.identify` has found for exactly this certificate with exactly
these authorities, and it counts from that moment until the credential ends. Who is revoked or banned is asked
elsewhere, every time. Failures are not remembered, so a stranger can push nobody out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from peanutd import access
from peanutd.access import Credential

KNOWN_MAX: Final = 16_384
"""Certificates that are remembered; the one that was judged first gives way."""


class Known:
    """One for all who come."""

    def __init__(self, most: int = KNOWN_MAX) -> None:
        self._most = most
        self._found: OrderedDict[bytes, tuple[datetime, Credential]] = OrderedDict()  # when, and what
        self._by: tuple[Sequence[x509.Certificate], timedelta] = ((), timedelta(0))  # what it was judged by

    def __len__(self) -> int:
        return len(self._found)

    def identify(
        self, der: bytes | None, authorities: Sequence[x509.Certificate], now: datetime, grace: timedelta = timedelta(0)
    ) -> Credential:
        """As `access.identify`, and as dear for a certificate that is new. `authorities` are the same while they are
        the same object.
        """
        if self._by[0] is not authorities or self._by[1] != grace:
            self._found.clear()
            self._by = (authorities, grace)
        if der is not None and (known := self._found.get(der)) is not None and known[0] <= now <= known[1].not_after:
            return known[1]
        credential = access.identify(der, authorities, now, grace)
        assert der is not None
        self._found.pop(der, None)
        self._found[der] = (now, credential)
        if len(self._found) > self._most:
            self._found.popitem(last=False)
        return credential
