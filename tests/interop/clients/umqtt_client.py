# umqtt.simple on MicroPython, which every stock ESP32 image carries; the lines are those of ../README.md.
# Two things here are ours: the context below, because the 1.3.4 of the package registry asks a module `ussl` that
# MicroPython has no more, and the loop, because umqtt.simple waits for what it is told to wait for and nothing else.
import select
import ssl
import sys


class Ussl:
    @staticmethod
    def wrap_socket(sock, ca, cert, key, host):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=ca)
        if cert:
            context.load_cert_chain(cert, key)
        return context.wrap_socket(sock, server_hostname=host)


sys.modules["ussl"] = Ussl

from umqtt.simple import MQTTClient, MQTTException  # noqa: E402


def unquote(value):
    head, *rest = value.split("%")
    out = head.encode()
    for part in rest:
        out += bytes([int(part[:2], 16)]) + part[2:].encode()
    return out.decode()


def tell(line):
    print(line)


def on_message(topic, payload):
    tell(f"message topic={topic.decode()} payload={payload.hex()}")


class Program:
    def __init__(self):
        self.client = None

    def connect(self, fields):
        host = unquote(fields["host"])
        tls = {"host": host}
        for name in ("ca", "cert", "key"):
            tls[name] = unquote(fields[name]) if name in fields else None
        client = MQTTClient(
            unquote(fields["id"]), host, int(fields["port"]), keepalive=int(fields.get("keepalive", "60")),
            ssl=True, ssl_params=tls,
        )  # fmt: skip
        client.set_callback(on_message)
        if "will_topic" in fields:
            client.set_last_will(
                unquote(fields["will_topic"]), bytes.fromhex(fields.get("will_payload", "")),
                retain=bool(int(fields.get("will_retain", "0"))), qos=int(fields.get("will_qos", "0")),
            )  # fmt: skip
        try:
            present = client.connect(clean_session=bool(int(fields["clean"])))
        except MQTTException as error:
            tell(f"refused reason={error.args[0]}")
        except (OSError, ValueError, TypeError, IndexError) as error:
            # a gateway that closes makes umqtt.simple index None or an empty answer
            tell("refused why={}".format(repr(error).replace(" ", "%20")))
        else:
            self.client = client
            tell(f"connected present={present}")

    def publish(self, fields):
        self.client.publish(
            unquote(fields["topic"]).encode(), bytes.fromhex(fields.get("payload", "")),
            retain=bool(int(fields.get("retain", "0"))), qos=int(fields.get("qos", "0")),
        )  # fmt: skip
        tell("published")

    def subscribe(self, fields):
        try:
            self.client.subscribe(unquote(fields["filter"]).encode(), int(fields.get("qos", "0")))
        except MQTTException as error:
            tell(f"subscribed reason={error.args[0]}")
        else:
            tell("subscribed")

    def disconnect(self, _fields):
        if self.client:
            try:  # noqa: SIM105  MicroPython has no contextlib
                self.client.disconnect()
            except OSError:
                pass
            self.client = None
        tell("disconnected")

    def listen(self):
        # One look for a message; it returns at once when there is none.
        if self.client:
            try:
                self.client.check_msg()
            except (OSError, IndexError, TypeError) as error:
                self.client = None
                tell("closed why={}".format(repr(error).replace(" ", "%20")))


def main():
    program = Program()
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    while True:
        if poll.poll(10):
            line = sys.stdin.readline()
            if not line:
                return
            word, *pairs = line.split()
            getattr(program, word)(dict(pair.split("=", 1) for pair in pairs))
        program.listen()


main()
