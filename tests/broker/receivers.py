"""Those who are told: an HTTP(S) server that keeps what it gets, a mail server, and a browser behind a push service.

The rule they keep: none of them uses the gateway's code; the browser decrypts by the text of RFC 8291 and checks the
gateway's token by RFC 8292.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import hmac
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID


def certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 with its key, in one file; and who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "receiver.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())


class Web:
    """An HTTP server: `got` has what was posted, `answers` what it says next (200 when there is nothing)."""

    def __init__(self, secure: Path | None = None) -> None:
        self.got: list[tuple[str, Mapping[str, str], bytes]] = []
        self.answers: list[tuple[int, str]] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                web.got.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                status, location = web.answers.pop(0) if web.answers else (200, "")
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if secure is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(secure)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.place = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http{'s' * (secure is not None)}://{self.place}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Post:
    """A mail server (aiosmtpd): `got` has sender, receivers and message of each mail, `logins` who has logged in."""

    def __init__(
        self, secure: Path | None = None, *, security: str = "none", login: tuple[str, str] = ("", "")
    ) -> None:
        """secure: a certificate with its key. security: as in alerts.toml, and nothing goes without it. login: name and
        password that are right; without one nobody has to log in.
        """
        self.got: list[tuple[str, list[str], str]] = []
        self.logins: list[tuple[str, str]] = []
        self.refuse = ""
        """What is said to each receiver, in place of yes."""
        self._login = login
        context = None
        if secure is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(secure)
        self._loop = asyncio.new_event_loop()

        def protocol() -> SMTP:
            return SMTP(
                *(self,),
                hostname="post",
                loop=self._loop,
                tls_context=context if security == "starttls" else None,
                require_starttls=security == "starttls",
                authenticator=self._authenticate,
                auth_required=security == "starttls",
                auth_require_tls=security == "starttls",
            )

        made = self._loop.create_server(protocol, "127.0.0.1", 0, ssl=context if security == "tls" else None)
        self._server = self._loop.run_until_complete(made)
        self.place = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, mechanism: str, said: Any
    ) -> AuthResult:
        assert mechanism in ("LOGIN", "PLAIN")
        self.logins.append((said.login.decode(), said.password.decode()))
        return AuthResult(success=self.logins[-1] == self._login, handled=False)

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _: Any) -> str:
        if not self.refuse:
            envelope.rcpt_tos.append(address)
        return self.refuse or "250 ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.got.append((str(envelope.mail_from), envelope.rcpt_tos, envelope.content.decode()))
        return "250 taken"

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        self._loop.close()


class Browser:
    """Has subscribed, and reads what its push service hands on."""

    def __init__(self, private: ec.EllipticCurvePrivateKey | None = None, auth: bytes = bytes(range(16))) -> None:
        self._private = private or ec.generate_private_key(ec.SECP256R1())
        self._auth = auth
        self._point = point(self._private.public_key())
        self.p256dh, self.auth = text(self._point), text(auth)

    def read(self, body: bytes) -> bytes:
        """The text of a push message (RFC 8188 §2, RFC 8291 §3)."""
        salt, record, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, sealed = body[21 : 21 + length], body[21 + length :]
        assert len(sealed) <= record
        assert len(body) <= 4096
        shared = self._private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
        first = digest(self._auth, shared)
        key = digest(first, b"WebPush: info\0" + self._point + sender + b"\1")
        second = digest(salt, key)
        content = digest(second, b"Content-Encoding: aes128gcm\0\1")[:16]
        nonce = digest(second, b"Content-Encoding: nonce\0\1")[:12]
        opened = AESGCM(content).decrypt(nonce, sealed, None).rstrip(b"\0")
        assert opened.endswith(b"\2"), "the last record"
        return opened[:-1]


def vapid(header: str) -> tuple[dict[str, Any], bytes]:
    """The claims of a push token whose signature is good, and the key that it names."""
    scheme, _, rest = header.partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert scheme == "vapid"
    signed, _, signature = parts["t"].rpartition(".")
    key, mark = data(parts["k"]), data(signature)
    numbers = (int.from_bytes(mark[:32], "big"), int.from_bytes(mark[32:], "big"))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
    public.verify(encode_dss_signature(*numbers), signed.encode(), ec.ECDSA(hashes.SHA256()))
    return json.loads(data(signed.split(".")[1])), key


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def digest(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def data(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
