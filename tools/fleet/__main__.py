"""python -m tools.fleet BUNDLE... : run nodes from their device bundles until Ctrl-C, their logs side by side.

Rule: whatever ends this program ends its nodes. Plain lines, no escape codes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from tools.fleet.node import STOP_S, FleetError, Node


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fleet",
        description="Run Peanut nodes on this PC: the real firmware on MicroPython's unix port.",
        epilog="example: python -m tools.fleet fleet/devices/peanut fleet/devices/tomato",
    )
    parser.add_argument("bundle", nargs="+", type=Path, help="device bundle: key.der cert.der ca.der node.json")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the nodes' files in DIR/<name>")
    parser.add_argument("--quiet", action="store_true", help="do not show the nodes' logs")
    return parser.parse_args(arguments)


class Tail:
    """Shows what was added to a node's log since the last call, each line after the node's name."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._at = node.log_path.stat().st_size if node.log_path.exists() else 0
        self._rest = b""

    def show(self) -> None:
        """Print the whole lines that are new."""
        with self.node.log_path.open("rb") as log:
            log.seek(self._at)
            data = log.read()
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            print(f"{self.node.name:<12} {line.decode(errors='replace')}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the nodes; 0 after a planned end, 1 if a node ended by itself or could not start."""
    options = parse(arguments)
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    nodes: list[Node] = []
    failed = False
    try:
        for bundle in options.bundle:
            node = Node(bundle, None if options.work is None else options.work / Path(bundle).resolve().name)
            nodes.append(node)
        tails = [Tail(node) for node in nodes]
        for node in nodes:
            node.start()
        ended: set[str] = set()
        while not ending.wait(0.2):
            for tail in tails:
                if not options.quiet:
                    tail.show()
                if not tail.node.running and tail.node.name not in ended:
                    ended.add(tail.node.name)
                    failed = True
                    print(f"{tail.node.name}: ended with status {tail.node.returncode}", file=sys.stderr, flush=True)
            if len(ended) == len(nodes):
                break
        for node in nodes:
            node.ask_to_stop()  # all at once; then wait for each
        for tail in tails:
            tail.node.stop(STOP_S)
            if not options.quiet:
                tail.show()
    except FleetError as error:
        print(f"error: {error}", file=sys.stderr)
        failed = True
    finally:
        for node in nodes:
            node.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
