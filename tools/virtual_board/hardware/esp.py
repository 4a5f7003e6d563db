"""`esp` of an ESP32."""

from _chip import state as _state


def osdebug(*args):
    pass


def flash_size():
    return _state["flash"]
