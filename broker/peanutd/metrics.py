"""Metrics for Prometheus at /metrics, as text.

The rule it keeps: numbers in, text out, and the gateway is not held up: a thread serves and writes them, and asks the
loop for one snapshot (server.py) each time. Every label is a word of ours, or the name of a device that the fleet's CA
has certified. Names end as Prometheus wants them (`_total`, `_bytes`, `_seconds`); README.md has the list.
"""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from peanutd.config import Address
from peanutd.ocsp import REQUEST_MAX, Responder
from peanutd.tally import Spread

Snapshot = Mapping[str, Any]

CRL_PATH: Final = re.compile("/issuing(-[0-9a-f]{8})?\\.crl")
"""The list of the issuing CA in use, and those of CAs that were replaced and are still trusted."""
OCSP_PATH: Final = "/ocsp"

_COUNTERS: Final = {
    "packets": ("MQTT packets", "direction", {"in": "packets_in", "out": "packets_out"}),
    "bytes": ("Bytes of MQTT, without TLS", "direction", {"in": "bytes_in", "out": "bytes_out"}),
    "payload_bytes": ("Bytes of payloads", "direction", {"in": "publish_bytes_in", "out": "publish_bytes_out"}),
    "throttled": ("Times that a client was over its rate and had to wait", None, {"": "throttled"}),
    "expired_sessions": ("Sessions that have expired", None, {"": "expired_sessions"}),
    "refused_memory": ("Sessions and subscriptions that max_memory has refused", None, {"": "refused_max_memory"}),
}
_GAUGES: Final = {
    "sessions": ("Sessions, those offline included", "sessions"),
    "subscriptions": ("Subscriptions", "subscriptions"),
    "retained_messages": ("Retained messages", "retained"),
    "retained_bytes": ("Bytes of retained messages", "retained_bytes"),
    "queued_messages": ("Messages that wait for clients, those under way to them included", "stored"),
    "queued_bytes": ("Bytes of these", "stored_bytes"),
    "retained_walks": ("Subscriptions that have yet to get retained messages", "walks"),
    "memory_bytes": ("Bytes that the core holds; max_memory bounds them", "memory"),
}


class _Peanut(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot], ledger: Callable[[], Mapping[str, float]]) -> None:
        self._snapshot = snapshot
        self._ledger = ledger

    def collect(self) -> Iterator[Any]:
        found = self._snapshot()
        core = found["core"]
        info = GaugeMetricFamily("peanut_info", "The version", labels=["version"])
        info.add_metric([found["version"]], 1)
        yield info
        yield GaugeMetricFamily("peanut_uptime_seconds", "Since the start", found["uptime"])
        yield GaugeMetricFamily("peanut_resident_memory_bytes", "Of the whole process", found["rss"])
        yield GaugeMetricFamily("peanut_bans", "Bans in force", found["bans"])
        yield _labelled(GaugeMetricFamily, "connections", "By state", "state", found["connections"])
        messages = CounterMetricFamily("peanut_messages", "Publications", labels=["direction", "qos"])
        for direction in ("in", "out"):
            for qos in "012":
                messages.add_metric([direction, qos], core[f"publishes_{direction}_qos{qos}"])
        yield messages
        for name, (help_, label, rows) in _COUNTERS.items():
            values = {key: core[field] for key, field in rows.items()}
            if label is None:
                yield CounterMetricFamily(f"peanut_{name}", help_, values[""])
            else:
                yield _labelled(CounterMetricFamily, name, help_, label, values)
        for name, (help_, field) in _GAUGES.items():
            yield GaugeMetricFamily(f"peanut_{name}", help_, core[field])
        drops = {key.removeprefix("dropped_"): count for key, count in core.items() if key.startswith("dropped_")}
        yield _labelled(CounterMetricFamily, "dropped", "Messages that did not reach somebody", "reason", drops)
        for name, help_, label in (
            ("handshakes_failed", "Connections that ended before a CONNECT", "reason"),
            ("turned_away", "Connections that were closed as they came", "reason"),
            ("refused", "CONNECTs that were refused", "reason"),
            ("disconnected", "Clients that were in and are no longer", "reason"),
            ("banned", "Bans made by what peers did", "kind"),
        ):
            yield _labelled(CounterMetricFamily, name, help_, label, found[name])
        yield _certificates(found["certificates"], self._ledger(), time.time())
        yield CounterMetricFamily("peanut_connections_accepted", "Connections accepted", found["accepted"])
        yield _histogram("loop_lag", "How late the event loop is", found["lag"])
        yield _histogram("journal_commit", "How long commits of the store take", found["journal"])
        failing = found["store"] is not None and found["store"]["failure"] is not None
        yield GaugeMetricFamily("peanut_store_failing", "1: what would have to be kept is refused", int(failing))


def _certificates(
    found: Mapping[str, Mapping[str, float]], ledger: Mapping[str, float], now: float
) -> GaugeMetricFamily:
    metric = GaugeMetricFamily("peanut_certificate_days", "Until a certificate ends", labels=["kind", "identity"])
    for kind, ends in {**found, "device": {**ledger, **found["device"]}}.items():
        for identity, end in ends.items():
            metric.add_metric([kind, identity], (end - now) / 86400)
    return metric


def _labelled(family: Any, name: str, help_: str, label: str, values: Mapping[str, float]) -> Any:
    metric = family(f"peanut_{name}", help_, labels=[label])
    for key, value in values.items():
        metric.add_metric([key], value)
    return metric


def _histogram(name: str, help_: str, spread: Spread) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"peanut_{name}_seconds", help_, buckets=spread.buckets(), sum_value=spread.total)


def _with_lists(metrics: Any, crl: Path | None, responder: Responder | None) -> Any:
    """Who is revoked, for others, at CRL_PATH and OCSP_PATH (RFC 6960, appendix A); metrics everywhere else."""

    def ocsp(environ: Any, start_response: Any, asked: Responder) -> Any:
        if environ.get("REQUEST_METHOD") == "POST":
            size = environ.get("CONTENT_LENGTH") or "0"
            request = environ["wsgi.input"].read(min(int(size), REQUEST_MAX) if size.isdecimal() else 0)
        else:
            try:
                request = base64.b64decode(environ["PATH_INFO"][len(OCSP_PATH) + 1 :][: 2 * REQUEST_MAX])
            except ValueError:
                request = b""
        body = asked.answer(request, datetime.now(UTC))
        start_response("200 OK", [("Content-Type", "application/ocsp-response"), ("Content-Length", str(len(body)))])
        return [body]

    def app(environ: Any, start_response: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        if (path == OCSP_PATH or path.startswith(OCSP_PATH + "/")) and responder is not None and responder.ready:
            return ocsp(environ, start_response, responder)
        if crl is None or not CRL_PATH.fullmatch(path):
            return metrics(environ, start_response)
        try:
            body = crl.with_name(path[1:]).read_bytes()
        except OSError:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there is no revocation list; peanut ca crl makes it\n"]
        start_response("200 OK", [("Content-Type", "application/pkix-crl"), ("Content-Length", str(len(body)))])
        return [body]

    return app


class _Handler(WSGIRequestHandler):
    timeout = 5.0  # seconds: nobody keeps a thread for longer

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing either: whoever asked is gone, or has asked too slowly."""


class _Threads6(_Threads):
    address_family = socket.AF_INET6


class Metrics:
    """Serves /metrics until `end`. `snapshot` is called in threads of ours and may take its time, and so may `ledger`:
    when the certificates of enrolled devices end, for those that were never seen. OSError when the address cannot be
    had.
    """

    def __init__(
        self,
        address: Address,
        snapshot: Callable[[], Snapshot],
        ledger: Callable[[], Mapping[str, float]] = dict,
        crl: Path | None = None,
        responder: Responder | None = None,
    ) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Peanut(snapshot, ledger))
        kind = _Threads6 if ":" in address.host else _Threads
        self._server = make_server(
            address.host, address.port, _with_lists(make_wsgi_app(registry), crl, responder), kind, _Handler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = Address(address.host, self._server.server_port)
        """With the port that it really got."""

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1)
