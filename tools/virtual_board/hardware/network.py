"""`network` of an ESP32: Wi-Fi whose air is the board's, over which the network of this PC is reached."""

import utime as _time
from _chip import ask as _ask
from _chip import state as _state

STA_IF, AP_IF = 0, 1
STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD, STAT_BEACON_TIMEOUT = 201, 202, 200
STAT_ASSOC_FAIL, STAT_HANDSHAKE_TIMEOUT = 203, 204
AUTH_OPEN, AUTH_WPA2_PSK, AUTH_WPA_WPA2_PSK = 0, 3, 4
MODE_11B, MODE_11G, MODE_11N = 1, 2, 4
PHY_LAN8720, PHY_LAN8710, PHY_IP101, PHY_RTL8201, PHY_DP83848, PHY_KSZ8041, PHY_KSZ8081 = range(7)
_JOIN_MS = 50  # a real one takes seconds

_names = {"hostname": "mpy-esp32", "country": "XX"}


def hostname(name=None):
    if name is None:
        return _names["hostname"]
    if len(name) > 32:
        raise ValueError
    _names["hostname"] = name


def country(code=None):
    if code is None:
        return _names["country"]
    if len(code) != 2:
        raise ValueError
    _names["country"] = code


def phy_mode(mode=None):
    return 7


class _Interface:
    _active = False

    def active(self, on=None):
        if on is not None:
            self._active = bool(on)
        return self._active

    def ifconfig(self, settings=None):
        if self.isconnected():
            return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "0.0.0.0")  # names are the PC's business
        return ("0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0")

    def ipconfig(self, name=None, **kw):
        return {"addr4": self.ifconfig()[:2], "gw4": self.ifconfig()[2], "has_dhcp4": True, "dhcp4": True}.get(name)


class WLAN(_Interface):
    IF_STA, IF_AP = STA_IF, AP_IF
    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 2
    SEC_OPEN, SEC_WPA2 = 0, 3
    _one = {}

    def __new__(cls, interface=STA_IF):
        if interface not in cls._one:
            one = cls._one[interface] = object.__new__(cls)
            one._ssid, one._since, one._result, one._set = "", None, STAT_IDLE, {}
        return cls._one[interface]

    def __init__(self, interface=STA_IF):
        pass

    def active(self, on=None):
        if on is False:
            self.disconnect()
        return super().active(on)

    def connect(self, ssid=None, key=None, *, bssid=None):
        if not self._active:
            raise OSError("Wifi Internal State Error")
        if self.status() == STAT_CONNECTING:
            raise OSError("Wifi Internal Error")
        self._ssid = ssid if isinstance(ssid, str) else bytes(ssid).decode()
        self._since = _time.ticks_ms()
        # asked in hex, so that any name and any password is one word
        self._result = _ask("join", self._ssid.encode().hex() or "-", (key or "").encode().hex() or "-")

    def disconnect(self):
        self._since, self._result = None, STAT_IDLE

    def status(self, what=None):
        if what == "rssi":
            return -50
        if self._since is None:
            return STAT_IDLE
        if _time.ticks_diff(_time.ticks_ms(), self._since) < _JOIN_MS:
            return STAT_CONNECTING
        return self._result

    def isconnected(self):
        return self.status() == STAT_GOT_IP

    def scan(self):
        return [(n.encode(), b"\x02\0\0\0\0\x01", 6, -50, a, False) for n, a in _ask("scan")]

    def config(self, *args, **kw):
        self._set.update(kw)
        if args:
            if args[0] == "mac":
                return bytes(_state["mac"])
            if args[0] in ("ssid", "essid"):
                return self._ssid
            if args[0] == "channel":
                return 6
            if args[0] in ("hostname", "dhcp_hostname"):
                return hostname()
            return self._set.get(args[0], 0)


class LAN(_Interface):
    def __init__(self, *args, **kw):
        pass

    def isconnected(self):
        return self._active

    def status(self):
        return 5 if self._active else 0

    def config(self, *args, **kw):
        return bytes(_state["mac"]) if args == ("mac",) else None
