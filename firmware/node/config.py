"""node.json: read whole, checked whole against a schema that is data, before anything starts.

Rule: a node runs on a configuration that it understands wholly, or says what is wrong with it and does not start.
Unknown keys are refused by name. What only one kind of node has stands in a module of that kind, which leaves memory
after each use. The board's outputs and sensors are the board file's; of them only what is used here
is checked.
"""

from node import ConfigError, forget, strictjson

NODE_JSON = "node.json"
MAX_SIZE = 4096  # bytes
MOST = 8  # Wi-Fi networks
KINDS = ("greenhouse", "vehicle")

MUST = ...  # in place of a default: must be there

# name: (type, low, high, default) for numbers; (str, words or None, None, default) for text; a dict is a table of its
# own; `dict` a table of named tables, (dict, …) one that only its driver reads. A default of None: may be left out.
# The tables that depend on the kind are TABLES of node/KIND_config.py, which has `sense` as well.
SCHEMA = {
    "format": (int, 1, 1, MUST),
    "name": (str, None, None, MUST),
    "kind": (str, KINDS, None, MUST),
    "root": (str, None, None, MUST),
    "gateway": {
        "host": (str, None, None, MUST),
        "port": (int, 1, 65535, MUST),
        "second": (str, None, None, None),  # host of a second gateway, same port
        "time_port": (int, 1, 65535, None),  # UDP; the same number as `port` if left out
    },
    "board": {
        "name": (str, None, None, MUST),
        "chip": (str, None, None, MUST),
        "outputs": dict,
        "sensors": dict,
        "buses": dict,
        "led": (dict, None, None, None),
        "button": (dict, None, None, None),
    },
    "report": {
        "telemetry_s": (float, 0.1, 86400, 60),
        "state_s": (float, 1, 86400, 300),
        "keep_s": (float, 0.1, 86400, 60),  # between two readings kept while the gateway is away
        "air": (bool, None, None, False),  # VPD and dew point, where temperature and humidity are measured
        "log": (str, ("info", "warn", "error", "off"), None, "warn"),
    },
    "link": {
        "base_s": (float, 0.05, 300, 1),
        "cap_s": (float, 0.05, 3600, 60),
        "first_s": (float, 0, 300, 10),
        "settle_s": (float, 0, 3600, 60),
        "refused_cap_s": (float, 0.05, 3600, 300),
        "trial_s": (float, 1, 86400, 600),  # for a session with new network settings, before the old ones return
        "health_s": (float, 1, 86400, 300),  # so long an update must do well before it stays
        "connect_s": (float, 0.5, 300, 30),
        "keepalive_s": (int, 2, 3600, 60),
    },
}
_FILLED = ("report", "link", "buses", "vehicle")  # tables that may be left out: filled with defaults
_ABSENT = ("simulate",)  # tables whose absence means something: left out


def load(path=NODE_JSON):
    """The checked configuration in the file. Raises ConfigError naming file and key."""
    return check(read(path), path + ": ")


def read(path=NODE_JSON):
    """The document in the file, not yet checked. Raises ConfigError naming the file; OSError becomes one as well."""
    try:
        with open(path, "rb") as f:
            size = f.seek(0, 2)  # so that no more is asked of the heap than the file has
            f.seek(0)
            data = f.read(min(size, MAX_SIZE))
    except OSError as e:
        raise ConfigError("%s: cannot be read (%s): put the device bundle on this node" % (path, e))
    if size > MAX_SIZE:
        raise ConfigError("%s: more than %d bytes" % (path, MAX_SIZE))
    try:
        return strictjson.loads(data)
    except ValueError as e:
        raise ConfigError("%s: %s" % (path, e))


def check(body, where=""):
    """A copy of `body` with defaults filled in. Raises ConfigError with every fault found, `where` before each."""
    faults = []
    if not isinstance(body, dict):
        raise ConfigError(where + "a JSON object expected")
    kind = body.get("kind")
    if kind not in KINDS:
        raise ConfigError('%skind: "%s" is not one of: %s' % (where, kind, ", ".join(KINDS)))
    name = "node.%s_config" % kind
    try:
        own = __import__(name, None, None, ("TABLES",))
    except ImportError:
        raise ConfigError("%skind: the firmware on this node is not that of a %s" % (where, kind))
    schema = dict(SCHEMA)
    schema.update(own.TABLES)
    out = _table(schema, body, "", faults)
    if not faults:
        _sense(out, faults)
        own.sense(out, faults)
    del own
    forget(name)
    if faults:
        raise ConfigError("\n".join([where + fault for fault in faults]))
    return out


def _table(schema, body, prefix, faults):
    out = {}
    for key in sorted(body):
        if key not in schema:
            faults.append("%s%s: unknown key" % (prefix, key))
    for key in sorted(schema):
        rule = schema[key]
        where = prefix + key
        value = body.get(key, MUST)
        if rule is dict or isinstance(rule, dict):
            if value is MUST and key in _ABSENT:
                continue
            if value is MUST and key in _FILLED:
                value = {}
            if not isinstance(value, dict):
                faults.append("%s: %s" % (where, "missing" if value is MUST else "must be a table"))
            elif rule is dict:
                out[key] = _things(value, where, faults)
            else:
                out[key] = _table(rule, value, where + ".", faults)
        else:
            out[key] = _value(rule, value, where, faults)
    return out


def _things(value, where, faults):
    """The board's outputs or sensors: named tables."""
    for name in sorted(value):
        if not isinstance(value[name], dict):
            faults.append("%s.%s: must be a table" % (where, name))
            continue
        for key, low, high in (("min_on_s", 0, 3600), ("min_off_s", 0, 3600), ("max_on_s", 1, 86400)):
            if key in value[name]:
                _value((float, low, high, 0), value[name][key], "%s.%s.%s" % (where, name, key), faults)
    return value


def _value(rule, value, where, faults):
    kind, low, high, default = rule
    if value is None and default is None:
        return None  # as left out: what `check` gave can be checked again
    if value is MUST:
        if default is MUST:
            faults.append("%s: missing" % where)
            return None
        return default
    if kind is dict:
        if not isinstance(value, dict):
            faults.append("%s: must be a table" % where)
    elif kind is bool:
        if not isinstance(value, bool):
            faults.append("%s: must be true or false" % where)
    elif kind is str:
        if not isinstance(value, str) or not value:
            faults.append("%s: must be a text" % where)
        elif low is not None and value not in low:
            faults.append('%s: "%s" is not one of: %s' % (where, value, ", ".join(low)))
    elif isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        faults.append("%s: must be a %s" % (where, "whole number" if kind is int else "number"))
    elif not low <= value <= high:
        faults.append("%s: %s is not within %s to %s" % (where, value, low, high))
    return value


def _sense(out, faults):
    """What no single key can tell."""
    if len(out["gateway"]["host"]) > 253:
        faults.append("gateway.host: too long")
    if out["link"]["base_s"] > out["link"]["cap_s"]:
        faults.append("link.base_s: must not be above link.cap_s")


def networks(raw):
    """(country, [(ssid, password)]) of wifi.json. Raises ValueError: what is wrong, and never a password."""
    body = strictjson.loads(raw)
    if not isinstance(body, dict) or body.get("format") != 1 or not isinstance(body.get("networks"), list):
        raise ValueError("format 1 and a list of networks expected")
    out = []
    for entry in body["networks"][:MOST]:
        pair = (entry.get("ssid"), entry.get("password", "")) if isinstance(entry, dict) else (None, None)
        if not isinstance(pair[0], str) or not isinstance(pair[1], str) or not 0 < len(pair[0].encode()) <= 32:
            raise ValueError("each network needs an ssid of 1 to 32 bytes and a password")
        out.append(pair)
    if not out:
        raise ValueError("no network in it")
    return body.get("country", "XX"), out
