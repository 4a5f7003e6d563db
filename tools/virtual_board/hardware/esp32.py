"""`esp32` of an ESP32: the non-volatile storage in its part of the flash, the heap, the partition that runs."""

from _chip import ask as _ask

HEAP_DATA, HEAP_EXEC = 4, 2
WAKEUP_ALL_LOW, WAKEUP_ANY_HIGH = False, True
_ENOENT, _EINVAL = 2, 22
_NOT_FOUND = -0x1102  # ESP_ERR_NVS_NOT_FOUND


def idf_heap_info(capabilities):
    """Regions (total, free, largest free block, least free ever): one, as large as an ESP32 has beside MicroPython."""
    return [(113840, 90000, 65536, 60000), (15072, 8000, 7936, 8000)]


def mcu_temperature():
    return 45


def raw_temperature():
    return 113


def gpio_deep_sleep_hold(on):
    pass


class NVS:
    """Named values that survive everything but the erasing of the flash."""

    def __init__(self, namespace):
        if len(namespace) > 15:
            raise OSError(-0x1105, "ESP_ERR_NVS_INVALID_NAME")
        self._space = namespace
        self._values = _ask("nvs", namespace)

    def _get(self, key, kind):
        found = self._values.get(kind + key)
        if found is None:
            raise OSError(_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        return found

    def set_i32(self, key, value):
        self._values["i" + key] = value

    def get_i32(self, key):
        return self._get(key, "i")

    def set_blob(self, key, value):
        self._values["b" + key] = bytes(value).hex()

    def get_blob(self, key, buffer):
        found = bytes.fromhex(self._get(key, "b"))
        if len(found) > len(buffer):
            raise OSError(-0x110C, "ESP_ERR_NVS_INVALID_LENGTH")
        buffer[: len(found)] = found
        return len(found)

    def erase_key(self, key):
        if self._values.pop("i" + key, self._values.pop("b" + key, None)) is None:
            raise OSError(_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")

    def commit(self):
        import json

        _ask("nvs!", self._space, json.dumps(self._values).encode().hex())


class Partition:
    BOOT, RUNNING = 0, 1
    TYPE_APP, TYPE_DATA = 0, 1

    def __init__(self, id):
        pass

    def info(self):
        return (0, 0, 0x10000, 0x1F0000, "factory", False)

    def get_next_update(self):
        raise OSError(_ENOENT)

    @classmethod
    def mark_app_valid_cancel_rollback(cls):
        pass
