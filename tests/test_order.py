"""The order of the files (order.py)."""

from tests.order import DEAR, TESTS, rank


def test_what_is_named_is_there() -> None:
    """A name that is none would put nothing first, and nobody would see it."""
    for name in DEAR:
        assert (TESTS / name).exists(), name


def test_the_dearest_are_first_and_what_has_no_name_is_last() -> None:
    assert rank(TESTS / "broker" / "test_core_c.py") == 0
    assert rank(TESTS / "system" / "test_demo.py") == DEAR.index("system")
    assert rank(TESTS / "broker" / "test_access.py") == rank(TESTS / "test_order.py") == len(DEAR)
    assert rank(TESTS / "app" / "test_app.py") < rank(TESTS / "app" / "test_built.py") < len(DEAR)
