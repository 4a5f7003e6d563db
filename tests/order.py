"""What comes first: files that take long begin at once, so that at the end no worker sits over one of them alone.

Rule: only the order of files; no test may need it. A file that is not named here comes after all that are.
"""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
DEAR = (
    "broker/test_core_c.py", "provisioning/test_flash.py", "app/test_app.py", "firmware/test_update_node.py",
    "interop/test_every_client.py", "firmware/test_vehicle_node.py", "firmware/test_limits.py", "system",
    "tools/test_virtual_board_flash.py", "broker/test_native.py", "broker/test_main.py", "broker/test_operate.py",
    "tools/test_virtual_board_repl.py", "broker/test_hardening.py", "provisioning/test_update.py", "app",
    "broker/durability", "broker/attack", "firmware/test_flood.py", "firmware/test_renewal.py", "firmware/test_node.py",
    "broker/test_server.py", "broker/test_transport_ws.py", "broker/test_login.py", "broker/test_revoked.py",
    "provisioning/test_init.py", "provisioning/test_prose.py", "provisioning/test_full_disk.py", "interop", "tools",
    "firmware", "provisioning", "broker/test_tokens.py", "broker/api",
)  # fmt: skip
"""Files, and folders of them, by the time that each takes, the most first (`pytest --durations=0` tells)."""


def rank(path: Path) -> int:
    """The place of a file's tests; the lower, the sooner."""
    for place, name in enumerate(DEAR):
        if path.is_relative_to(TESTS / name):
            return place
    return len(DEAR)
