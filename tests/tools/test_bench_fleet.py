"""Proves that the fleet's benchmark names what goes wrong, and that its nodes are nodes of the fleet.

The rule it keeps: nothing here runs a gateway; that is long_bench_fleet.py.
"""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tools.bench import fleet
from tools.bench.brokers import Peanutd

STEADY: dict[str, Any] = {
    "phase": "steady", "label": "reports", "seconds": 4.0, "reports": 40, "lost": 0, "commands": 9, "unanswered": 0,
    "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0, "doubled": 0, "reordered": 0, "waiting": 0.9, "gateway_cpu": 0.1,
    "gateway_bytes": 60 * 2**20,
}  # fmt: skip
RECOVER = STEADY | {
    "phase": "recover", "first_back_s": 1.0, "mean_s": 5.0, "longest_s": 9.0, "attempts": 2
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (STEADY, []),
        (STEADY | {"lost": 2, "unanswered": 1}, ["2 lost", "1 unanswered"]),
        (STEADY | {"doubled": 3, "reordered": 1}, ["3 doubled", "1 reordered"]),
        (STEADY | {"p99_ms": 50.4}, ["p99 50 ms, not 50"]),
        (RECOVER | {"p99_ms": 199.0}, []),
        (RECOVER | {"p99_ms": 201.0}, ["p99 201 ms, not 200"]),
        ({"phase": "growth", "growth": 0.04}, []),
        ({"phase": "growth", "growth": 0.06}, ["memory has grown by 6%"]),
        ({"phase": "growth", "growth": 0.0, "more_files": 16}, []),
        ({"phase": "growth", "growth": 0.0, "more_files": 17}, ["17 more files are open"]),
    ],
)
def test_what_goes_wrong_is_named(said: dict[str, Any], words: list[str]) -> None:
    assert fleet.faults(said) == words


def test_the_table_has_a_line_a_phase() -> None:
    connect = {"phase": "connect", "label": "all come in", "seconds": 1.0, "nodes": 5, "bytes_per_node": 2048}
    growth = {"phase": "growth", "label": "soak", "growth": 0.012, "more_files": 3, "disk_a_report": 41}
    lines = fleet.table([connect, STEADY | {"lost": 1, "others": 0.7}, RECOVER | {"others": 0.02}, growth])
    assert "5 nodes, 2.0 KiB each" in lines[2]
    assert lines[3].split()[:6] == ["reports", "4.0", "40", "9", "1.00", "2.00"]
    assert lines[3].endswith("1 lost, noise: others took 70% of a core")
    assert "noise" not in lines[4]
    assert "last 9.0 s, attempts at most 2" in lines[4]
    assert lines[5].endswith("memory +1.2%, open files +3, 41 bytes of disk a report")


def test_nodes_are_in_the_ledger_and_have_certificates_of_the_fleet(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Peanutd.init(home)
    made = x509.load_pem_x509_certificates(fleet.make_certificates(home, 3).read_bytes())
    issuing = x509.load_pem_x509_certificate((home / "ca" / "issuing.crt").read_bytes())
    uris = []
    for certificate in made:
        certificate.verify_directly_issued_by(issuing)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris += names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [f"peanut:plant/n{number:05}" for number in range(3)]
    with sqlite3.connect(home / "ledger.db") as ledger:
        rows = ledger.execute("SELECT name, serial FROM device ORDER BY name").fetchall()
    assert rows == [(f"n{n:05}", f"{each.serial_number:x}") for n, each in enumerate(made)]
