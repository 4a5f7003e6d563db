"""Types of the extension module that core/module.c builds; the docstrings are there."""

from collections.abc import Callable, Sequence
from socket import socket
from typing import Any, final

# A packet as a dictionary; tests/vectors/README.md describes the keys of each type. Binary fields are bytes.
Packet = dict[str, Any]

PACKET_SIZE_MAX: int  # bytes of the largest packet there can be

class MqttError(Exception):
    code: int  # reason code (5.0 §2.4)
    name: str  # its name in snake_case: "malformed_packet"

def decode(
    data: bytes | bytearray | memoryview, version: int | None = None, max_size: int = ...
) -> tuple[Packet, int] | None: ...
def encode(packet: Packet, version: int | None) -> bytes: ...

@final
class Decoder:
    def __init__(self, version: int | None = None, max_size: int = ...) -> None: ...
    def feed(self, chunk: bytes | bytearray | memoryview, /) -> list[Packet]: ...
    @property
    def version(self) -> int | None: ...

# --- the broker -------------------------------------------------------------------------------------------------------

# Kinds of event. An event is (kind, link, reason, text):
#   EVENT_CONNECT     a CONNECT has arrived on `link`: read link.connect, then call link.accept() or link.refuse()
#   EVENT_DISCONNECT  the session of an accepted link has gone offline; reason as in DISCONNECT (0 and 4: the client
#                     said so; 0x80: the driver reported the socket lost; else the broker's); exactly one for each
#                     client that accept() let in (accept() may end in a refusal as well: EVENT_CLOSED alone)
#   EVENT_CLOSED      the core is done with `link` (after refuse(), an error, a DISCONNECT, a takeover): send what
#                     take() still gives, close the socket, call link.lost()
#   EVENT_DENIED      a publish or a subscription that no rule allows; text is "publish TOPIC", "publish retained
#                     TOPIC", "subscribe FILTER" or "will TOPIC"; with reason 0x97 and "retain TOPIC": it was sent on,
#                     but not retained, because the store is full
#   EVENT_AUTH        the client's AUTH has come, reason 0x18 (it goes on) or 0x19 (it is in and authenticates anew):
#                     read link.authentication, then challenge(), accept() or authenticated(), refuse() or close()
#   EVENT_PAUSE       the client sends faster than publish_rate or byte_rate (reason 0x96), or what it has sent takes
#                     long to do (0: work() goes on with it): read no more from it
#   EVENT_RESUME      … until now
EVENT_CONNECT: int
EVENT_DISCONNECT: int
EVENT_CLOSED: int
EVENT_DENIED: int
EVENT_AUTH: int
EVENT_PAUSE: int
EVENT_RESUME: int

MAY_PUBLISH: int
MAY_SUBSCRIBE: int
MAY_SHARE: int
RETAIN_ANY: int
RETAIN_ONLY: int
RETAIN_NEVER: int

Event = tuple[int, "Link", int, str]
# allow, actions (MAY_*; MAY_SHARE is to subscribe by $share), retain condition (RETAIN_*; for publications only), topic
# filter with {id}; the highest QoS (2 if not said), the identities that it is for (None, or not said: all; (): nobody)
Rule = (
    tuple[bool, int, int, str]
    | tuple[bool, int, int, str, int]
    | tuple[bool, int, int, str, int, tuple[str, ...] | None]
)

class Broker:
    """All sessions, subscriptions and retained messages of one gateway (MQTT 3.1.1 and 5.0).

    `now` is milliseconds of a monotonic clock everywhere. Every call that can raise events returns them; they are
    the caller's to handle before the next call. Not thread-safe.
    """

    def __init__(self, *, seed: bytes, **limits: int) -> None:
        """seed: 8 or more random bytes (against crafted hash collisions). limits: see LIMITS for names and defaults."""

    def open(self, owner: object, now: int) -> Link:
        """A new transport connection. `owner` is kept as link.owner."""

    def set_rules(self, slot: int, rules: Sequence[Rule]) -> None:
        """Replaces rule set `slot` (0 to 15). First match decides, no match denies. Sessions that use the slot are
        judged again: subscriptions and wills that are no longer allowed end, and no subscription keeps a QoS above what
        its rule grants. ValueError names the filter that is not valid."""

    def set_limits(self, **limits: int) -> None:
        """Limits for what comes from now on; connections keep what they were told in CONNACK. Those not named get their
        defaults. ValueError and TypeError as in Broker(), and then nothing has changed."""

    def revoke(self, slot: int, identity: str, now: int) -> None:
        """Whoever was known under that slot and identity is so no longer: its delayed wills are dropped when due."""

    def explain(
        self, slot: int, identity: str, action: int, topic: str, retain: bool = False, qos: int = 0
    ) -> tuple[bool, int, int]:
        """Whether the rule set allows it, the number of the rule that decides (-1: none), and the QoS that is granted.
        For MAY_SHARE `topic` is the filter without `$share/group/`."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, lifetime: int = -1, now: int
    ) -> tuple[Event, ...]:
        """Publishes in the gateway's own name; no rule is asked. lifetime: milliseconds after which it waits for nobody
        any more; less than 0: for ever."""

    def retained(self, topic: str) -> bytes | None:
        """The payload of the retained message of exactly this topic."""

    def dirty(self) -> list[Link]:
        """Links that have output since the last call, each once."""

    def online(self, session: str) -> bool:
        """Whether the session of that key is online."""

    def tick(self, now: int) -> tuple[Event, ...]:
        """Lets time pass: keep alive, connect timeout, delayed wills, session expiry. Call it once a second or so."""

    @property
    def busy(self) -> bool:
        """Whether there is work that is done in slices: then call `work` once a turn of the loop. Never where there is
        a native Loop, which does it."""

    def work(self, now: int) -> tuple[Event, ...]:
        """A slice of it, a few milliseconds: what clients sent beyond their share, retained messages to come."""
    def keep(self, *, waits: bool, wall: int) -> None:
        """Records from now on everything that must survive a crash. waits: what says that something is kept is sent
        when it is on the disk. wall: the wall clock less `now`, in milliseconds; calling again sets both anew.
        RuntimeError when there are sessions already that were not kept."""

    def restore(self, rows: list[tuple[bytes, bytes]], now: int) -> int:
        """Records as they were kept, (key, value), in the order of the keys, in as many calls as you like; after keep()
        and set_rules(), before any link. Returns how many of them mean nothing and were left out."""

    def restored(self, now: int) -> tuple[Event, ...]:
        """That was all there is: wills and sessions whose time is up go, and what the rules no longer allow."""

    def journal(self) -> tuple[int, bytes] | None:
        """The records that are to be written next, all or none of them, and their number; None when there are none.
        core/journal.h says what they look like."""

    def committed(self, number: int, now: int) -> tuple[Event, ...]:
        """The records of that number and all before them are on the disk."""

    def failing(self, fails: bool, now: int) -> tuple[Event, ...]:
        """The disk keeps nothing at present, or does again. Meanwhile what would have to be kept is refused."""

    def stats(self) -> dict[str, int]:
        """Counters since the start and gauges of now, by name."""

LIMITS: dict[str, int]

class Connect:
    """What a CONNECT asks for; see 5.0 §3.1."""

    version: int
    client_id: str
    username: str | None
    password: bytes | None
    clean_start: bool
    keep_alive: int
    will_topic: str | None
    authentication_method: str | None
    authentication_data: bytes | None

class Link:
    owner: object
    connect: Connect | None
    """The CONNECT that waits for its verdict, None at other times."""

    def feed(self, data: bytes | bytearray | memoryview, now: int) -> tuple[Event, ...]:
        """Bytes from the peer, in any split."""

    def accept(
        self,
        *,
        session: str,
        identity: str,
        rules: int,
        assigned_client_id: str | None = None,
        now: int,
        authentication_data: bytes = b"",
        response_information: str | None = None,
    ) -> tuple[Event, ...]:
        """Lets the client in. session: the key its session is kept under (unique to identity and client id);
        identity: what {id} stands for in rules; rules: the slot. ValueError when no CONNECT waits."""

    def refuse(self, reason: int, text: str = "", *, now: int) -> tuple[Event, ...]:
        """Sends CONNACK with `reason` (a 5.0 reason code; 3.1.1 gets the nearest return code) and ends the link."""

    def close(self, reason: int, now: int, text: str = "") -> tuple[Event, ...]:
        """Ends the link from our side: DISCONNECT with `reason` for 5.0 clients, then EVENT_CLOSED. The will is
        published unless reason is 0. `text`: the Server Reference for reasons 0x9C and 0x9D, else the Reason String."""

    @property
    def authentication(self) -> tuple[str, bytes] | None:
        """Method and data of the AUTH that waits to be judged (of a CONNECT: the method; its data are in connect)."""

    def challenge(self, data: bytes = b"", *, now: int) -> tuple[Event, ...]:
        """Sends AUTH 0x18 with `data`, and waits for the client's. ValueError when no AUTH and no CONNECT with a method
        waits."""

    def authenticated(self, data: bytes = b"", *, now: int) -> tuple[Event, ...]:
        """Ends a re-authentication with AUTH 0x00. ValueError when none waits."""

    def proved_until(self, until: int, now: int) -> None:
        """When the proof of who the client is ends (milliseconds of the same clock), if it does: a will that is delayed
        beyond that is dropped. One that is due at the end of the connection is published, whatever ends it."""

    def lost(self, now: int) -> tuple[Event, ...]:
        """The socket is gone. The link is dead afterwards: every further call does nothing."""

    def take(self, limit: int = ...) -> bytes:
        """Removes and returns up to `limit` bytes of encoded output."""

    @property
    def pending(self) -> int:
        """Bytes of output waiting in take()."""

# --- the native loop, where it was built (setup.py) -------------------------------------------------------------------

# Kinds of post beside the EVENT_* of the core, which come with their Link; a post is (kind, object, reason, text), and
# the object is what `add` was given:
#   POST_HELLO     the first bytes of a client of TLS: say begin(), more() or finish(); nothing where reason is 1
#   POST_READY     the handshake is done, reason 3 for TLS 1.3, 2 for 1.2; text is the certificate in DER, or the
#                  identity of a key, or empty; say attach(), or abort(): what ends the handshake of TLS 1.2 is not sent
#                  before
#   POST_OPENED    the same of TLS 1.3 where welcome() was said, and the Link is good already; nothing is to be said
#   POST_FAILED    it is not; text has OpenSSL's words, reason the X509_V_ERR_…; the connection ends by itself
#   POST_LOST      the connection has given up its link: say link.lost()
#   POST_STALLED   it reads nothing, and was cut
#   POST_PESTERS   it reads nothing and makes TLS answer, and was cut
#   POST_GONE      its socket is closed; the last one
#   POST_PUMP      a Link of another driver has output
#   POST_JOURNAL   there is something for Broker.journal(); no object
POST_HELLO: int
POST_READY: int
POST_OPENED: int
POST_FAILED: int
POST_LOST: int
POST_STALLED: int
POST_PESTERS: int
POST_GONE: int
POST_PUMP: int
POST_JOURNAL: int
LOOPS_MAX: int
TLS_NONE: int
TLS_OPTIONAL: int
TLS_REQUIRED: int

OPENSSL: str  # the library of the native loop, in its own words; Python's ssl may have another

@final
class Tls:
    """What handshakes go by: PEM texts, and OpenSSL's names. ValueError says what is not usable."""

    def __init__(
        self,
        *,
        chain: bytes,
        key: bytes,
        authorities: bytes,
        certificate: int,
        ciphers: str,
        groups: str,
        tickets: int,
        psk: list[tuple[bytes, bytes]] | None,
    ) -> None:
        """tickets: seconds that a session can be resumed for; 0: no tickets. psk: identities and keys of devices, in
        place of all certificates; with TLS_NONE, and without tickets."""

    def rotate(self) -> None:
        """Another key for tickets to come; those of the one before it are good still, older ones are not."""

    def staple(self, answer: bytes) -> None:
        """What clients that ask are told about the gateway's certificate: an OCSP response in DER, or nothing."""

def accept(listening: socket, /) -> tuple[int, str, int]:
    """File descriptor, host and port of somebody who has come to a TCP socket that listens. It does not block; OSError
    as `socket.accept`."""

@final
class Loop:
    """The native driver of a Broker; native/loop.h is the manual. Orders for connections that are gone do nothing."""

    def __init__(
        self,
        broker: Broker,
        *,
        stall: float = 0,
        linger: float = 0,
        threads: int = 0,
        loops: int = 1,
        wake: Callable[[int, Link, bytes, Any], object] | None = None,
    ) -> None:
        """stall: seconds until who reads nothing is cut (0: never); linger: until who does not close is; threads: that
        take the steps of handshakes (0: the loop itself); loops: threads among which connections are spread, up to
        LOOPS_MAX; wake: makes the object of a connection that has rested, of name, link and what `rest` was given. It
        is called whenever there is news of it, before that is told."""

    def start(self) -> None:
        """Turns in a thread of its own from now on."""

    def turn(self, timeout: int) -> None:
        """One turn without a thread: waits that many milliseconds at the most, -1 for ever; of several loops each takes
        one, and waits a millisecond at the most."""

    def end(self) -> None:
        """Ends the thread and closes every connection."""

    def fileno(self) -> int:
        """Is readable while there are posts."""

    def posts(self) -> list[tuple[int, object, int, str | bytes]]: ...
    def set_times(self, *, stall: float, linger: float) -> None: ...
    def add(self, fd: int, object: object, now: int) -> tuple[int, Link]:
        """The socket, which must not block, is the loop's from now on, and speaks plain MQTT. The connection's name for
        all below, and its link."""

    def welcome(self, fd: int, object: object, tls: Tls | None) -> tuple[int, Link]:
        """The same for TLS. tls: what the handshake may begin with as soon as the first bytes are there; None: begin()
        says so. The Link is of no use until POST_OPENED; where POST_READY comes it never is."""

    def begin(self, name: int, tls: Tls) -> None: ...
    def more(self, name: int) -> None: ...
    def attach(self, name: int, link: Link, now: int) -> None:
        """After the handshake: opens the link that `welcome` has given."""

    def rest(self, link: Link, note: bytes, kept: object) -> None:
        """Link and connection's object are let go of; whoever has the link still has a dead one. ValueError when it is
        lost. kept: None, or what `wake` and `kept` show."""

    def wake(self, picks: Callable[[Any], bool] | None = None) -> list[Any]:
        """The objects of those that rested; with `picks`, of those alone whose `kept` it picks."""

    def kept(self) -> list[Any]:
        """What was kept of those that rest, where it was not None."""

    @property
    def resting(self) -> int:
        """How many rest."""
    def hold(self, name: int) -> None:
        """EVENT_PAUSE or EVENT_RESUME has been returned for its link: reads no more for now, or again."""

    def seen(self, name: int) -> None:
        """EVENT_CONNECT or EVENT_AUTH has come for it as a post, and been handled: what is behind it is read."""

    def finish(self, name: int) -> None: ...
    def abort(self, name: int) -> None: ...
    def counts(self) -> dict[str, int]:
        """connections of now; turns, receives and sends so far."""

    def each(self) -> list[dict[str, int]]:
        """The same of each loop."""
