"""An operator's session with the gateway: connected over mutual TLS, subscribed, its failures in words.

Rules: the identity of both sides is checked (TLS 1.2 at least, host name checked); a text that came over the network is
made printable before it is shown. MQTT 5 is spoken for its reason codes. Nothing runs but inside `until`.
"""

import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from peanut import ca, operators, store
from peanut.errors import Exit, PeanutError
from peanut.home import Home
from peanut.names import printable

CONNECT_S = 10.0  # for TCP, for the handshake, and for CONNACK and SUBACK
KEEPALIVE_S = 15
POLL_S = 0.1  # the longest wait between two looks at the clock
ANSWER_MAX = 16 * 1024  # bytes; larger packets the gateway does not send us (MQTT 5, 3.1.2.11.4)
SUCCESS_MAX = 0x7F  # reason codes from 0x80 on are failures (MQTT 5, 2.4)


@dataclass(frozen=True)
class Credentials:
    """PEM files of an operator."""

    ca: Path
    certificate: Path
    key: Path


def credentials(home: Home, name: str | None, now: datetime) -> Credentials:
    """The files of an operator (None: of the only one, or of the one called `operator`), checked before they are used.

    A certificate that the gateway would refuse is told apart here, where the reason is known.
    """
    home.require()
    known = operators.existing(home)
    name = name or (known[0] if len(known) == 1 else "operator")
    if name not in known:
        listed = f"Operators: {', '.join(known)}." if known else "There are none yet."
        raise PeanutError(f"there is no operator {printable(name)!r}", f"{listed} Make one: peanut operator add NAME")
    folder, fix = home.operator(name), f"Run `peanut operator add {name}`: it completes and renews."
    files = Credentials(folder / operators.ROOT, folder / operators.CERTIFICATE, folder / operators.KEY)
    try:
        certificate, key = store.certificate(files.certificate), store.key(files.key)
        store.certificate(files.ca)
        why = _why_refused(certificate, key, store.certificates(home.ca / "issuing.crt"), now)
    except PeanutError as error:
        raise PeanutError(error.message, fix, Exit.CERTIFICATE) from None
    if why:
        raise PeanutError(f"the certificate of the operator {name} {why}", fix, Exit.CERTIFICATE)
    return files


def _why_refused(certificate: x509.Certificate, key: ca.Key, issuers: Sequence[x509.Certificate], now: datetime) -> str:
    if certificate.not_valid_after_utc <= now:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if certificate.not_valid_before_utc > now:
        start = certificate.not_valid_before_utc
        return f"is valid from {start:%Y-%m-%d %H:%M} UTC on, and this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
    if not ca.same_key(certificate, key):
        return "is for another key"
    if not any(ca.issued_by(certificate, issuer) for issuer in issuers):
        return "was not issued by this fleet's CA"
    if not any(ExtendedKeyUsageOID.CLIENT_AUTH in u.value for u in _usages(certificate)):
        return "is not one for a client"
    return ""


def _usages(certificate: x509.Certificate) -> Iterator[x509.Extension[x509.ExtendedKeyUsage]]:
    try:
        yield certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return


def tls(files: Credentials) -> ssl.SSLContext:
    """Both sides prove who they are; TLS 1.2 at least; the gateway's name is checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED and check_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context


class Session:
    """Connected and subscribed from `connect` to `close`. Everything else happens inside `until`.

    filters, whose: what is subscribed to, and of whom (for people); hear: is given each message;
    published: is given the id and the reason code of each PUBACK.
    """

    def __init__(
        self,
        gateway: tuple[str, int],
        context: ssl.SSLContext,
        filters: Sequence[str],
        whose: str,
        hear: Callable[[mqtt.MQTTMessage], None],
        published: Callable[[int, int, str], None] = lambda *_: None,
    ) -> None:
        self._gateway = gateway
        self.where = f"{gateway[0]}:{gateway[1]}"
        self._filters = filters
        self._whose = whose
        self._hear = hear
        self._published = published
        self.failure: PeanutError | None = None
        self._connected = self._subscribed = False
        self._complaint = ""
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"peanut-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_S
        client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = lambda _client, _userdata, message: self._hear(message)
        client.on_disconnect = self._on_disconnect
        client.on_log = self._on_log
        self._client = client

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, lifetime_s: int | None = None) -> int:
        """Send, never retained; the id that `published` is called with."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if lifetime_s is not None:
            properties.MessageExpiryInterval = lifetime_s
        return self._client.publish(topic, payload, qos=qos, retain=False, properties=properties).mid

    def until(
        self,
        finished: Callable[[], bool],
        seconds: float,
        expired: Callable[[], PeanutError],
        turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve the session until `finished`; raise what `expired` says after `seconds`. turn: called at every turn."""
        deadline = time.monotonic() + seconds
        while not finished():
            left = deadline - time.monotonic()
            if left <= 0:
                raise expired()
            code = self._client.loop(min(POLL_S, left))
            if self.failure is not None:
                raise self.failure
            if finished():
                return
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise self._lost(code)
            turn()

    def close(self) -> None:
        """End the session in order."""
        self._client.disconnect()
        self._client.loop(POLL_S)  # lets the DISCONNECT out

    def connect(self) -> None:
        """Connect and subscribe; PeanutError with the exit status if that does not work."""
        self._connect()
        try:
            self.until(lambda: self._subscribed, CONNECT_S, lambda: self._unreachable(f"{self.where} did not answer"))
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = ANSWER_MAX
        host, port = self._gateway
        try:
            self._client.connect(host, port, keepalive=KEEPALIVE_S, clean_start=True, properties=properties)
        except ssl.SSLCertVerificationError as error:
            raise self._not_trusted(error) from None
        except ssl.SSLError as error:
            if any(word in (error.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")):
                raise self._turned_away(error.reason) from None  # how TLS 1.2 tells it
            raise PeanutError(
                f"no TLS with {self.where}: {printable(error.reason or error)}",
                "Is that the gateway's TLS port? See [listen] in gateway.toml, or give --gateway HOST:PORT.",
                Exit.CERTIFICATE,
            ) from None
        except socket.gaierror:
            raise PeanutError(
                f"there is no host called {printable(host)}",
                "Name the gateway with --gateway HOST:PORT.",
                Exit.UNREACHABLE,
            ) from None
        except TimeoutError:
            raise self._unreachable(f"no answer from {self.where} within {CONNECT_S:.0f} s") from None
        except OSError as error:
            raise self._unreachable(f"no connection to {self.where}: {error.strerror or error}") from None

    def _unreachable(self, message: str) -> PeanutError:
        return PeanutError(
            f"gateway unreachable: {message}",
            "Is peanutd running there? Name another gateway with --gateway HOST:PORT.",
            Exit.UNREACHABLE,
        )

    def _not_trusted(self, error: ssl.SSLCertVerificationError) -> PeanutError:
        host = self._gateway[0]
        reason = error.verify_message or str(error)
        if "mismatch" in reason.lower():  # host name or IP address
            message = f"the gateway's certificate is not for {host}"
            fix = f"Issue it for that name as well (peanut init --host {host}), or connect under one that it has."
        elif error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
            message, fix = (
                "the gateway's certificate has expired",
                "On the gateway: run `peanut init`, then reload peanutd.",
            )
        elif error.verify_code == 9:  # X509_V_ERR_CERT_NOT_YET_VALID
            message, fix = "the gateway's certificate is not valid yet", "Set this machine's clock."
        else:
            message = f"{self.where} is not this fleet's gateway: {printable(reason)}"
            fix = "Is this the right fleet home (--home) and the right gateway (--gateway)?"
        return PeanutError(message, fix, Exit.CERTIFICATE)

    def _lost(self, code: MQTTErrorCode) -> PeanutError:
        if code == MQTTErrorCode.MQTT_ERR_PROTOCOL:
            return self._unreachable(f"{self.where} does not speak MQTT 5")
        if not self._connected:
            # In TLS 1.3 a server reads our certificate after the handshake is over for us; its alert comes now.
            return self._turned_away(self._complaint)
        return self._unreachable(f"{self.where} closed the connection")

    def _turned_away(self, why: str) -> PeanutError:
        detail = f" ({printable(why)})" if why else ""
        return PeanutError(
            f"the gateway {self.where} closed the connection when it saw our certificate{detail}",
            "Its log says why. Is this the fleet home (--home) of that gateway (--gateway)?",
            Exit.CERTIFICATE,
        )

    # What follows is called by paho, from within its loop().

    def _on_connect(
        self, client: mqtt.Client, _userdata: Any, _flags: mqtt.ConnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        self._connected = True
        if reason.is_failure:
            self.failure = PeanutError(
                f"the gateway refused the connection: {reason}", "Its log says why.", Exit.REFUSED
            )
            return
        options = SubscribeOptions(qos=1)
        client.subscribe([(name, options) for name in self._filters])

    def _on_subscribe(
        self, _client: mqtt.Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        refused = next((r for r in reasons if r.value > SUCCESS_MAX), None)
        if refused is not None:
            self.failure = PeanutError(
                f"the gateway does not let this operator read the answers of {self._whose}: {refused}",
                "Use an operator who may: --operator NAME.",
                Exit.REFUSED,
            )
        self._subscribed = True

    def _on_publish(self, _client: mqtt.Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._published(mid, reason.value, str(reason))

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Any,
    ) -> None:
        if flags.is_disconnect_packet_from_server and self.failure is None:
            self.failure = PeanutError(f"the gateway ended the session: {reason}", "Its log says why.", Exit.REFUSED)

    def _on_log(self, _client: mqtt.Client, _userdata: Any, level: int, text: str) -> None:
        # The only place where paho says why a socket died.
        if level == mqtt.MQTT_LOG_ERR and "socket" in text:
            self._complaint = text.partition(": ")[2]
