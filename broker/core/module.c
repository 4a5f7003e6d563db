/* module.c: the core as the Python module `peanutd._core`; the only file that includes Python.h.
 *
 * The rule it keeps: it translates and decides nothing. No state outside the module object (multi-phase initialisation,
 * heap types, so that every interpreter has its own), every object that owns another one is known to the collector.
 * Functions that return a PyObject * return a new reference or NULL with an exception set; functions that return int
 * return 0, or -1 with an exception set.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <structmember.h>

#include "broker.h"
#include "mem.h"
#include "../native/objects.h"
#ifdef PN_NATIVE
#include "../native/guest.h"
#include "../native/loops.h"
#endif

/* ==== Module state ============================================================================================== */

/* The keys of packet dictionaries, in the order of `enum key`. */
#define KEYS(K)                                                                                                  \
    K(type) K(version) K(clean_start) K(keep_alive) K(client_id) K(properties) K(will) K(username) K(password)     \
    K(qos) K(retain) K(topic) K(payload) K(session_present) K(reason) K(dup) K(id) K(filters) K(filter)            \
    K(no_local) K(retain_as_published) K(retain_handling) K(reasons)

#define KEY_ENUM(name) K_##name,
enum key { KEYS(KEY_ENUM) KEY_COUNT };

typedef struct core_state {
    PyObject *mqtt_error;              /* class MqttError */
    PyObject *decoder_type;            /* class Decoder */
    PyObject *link_type, *connect_type; /* classes Link and Connect */
    PyObject *keys[KEY_COUNT];         /* interned */
    PyObject *types[PN_TYPES];         /* "CONNECT" … at their numbers, else NULL; interned */
    PyObject *props[PN_PROPERTY_IDS];  /* "topic_alias" … at their identifiers, else NULL; interned */
} core_state;

static core_state *state_of_module(PyObject *module) { return (core_state *)PyModule_GetState(module); }

/* The state behind an object of one of our types (none of which may be subclassed). */
static core_state *state_of(PyObject *self) { return (core_state *)PyType_GetModuleState(Py_TYPE(self)); }

/* ==== Helpers for every section ================================================================================= */

/* Raises MqttError with `code`, its name and a sentence (a format of PyUnicode_FromFormat). Returns NULL. */
static PyObject *raise_mqtt(core_state *st, int code, const char *format, ...) {
    const char *name = pn_reason_name((uint8_t)code);
    va_list args;
    va_start(args, format);
    PyObject *why = PyUnicode_FromFormatV(format, args);
    va_end(args);
    if (!why) return NULL;
    PyObject *error = PyObject_CallOneArg(st->mqtt_error, why);
    Py_DECREF(why);
    if (!error) return NULL;
    PyObject *number = PyLong_FromLong(code), *text = PyUnicode_FromString(name ? name : "unknown");
    if (number && text && PyObject_SetAttrString(error, "code", number) == 0 &&
        PyObject_SetAttrString(error, "name", text) == 0)
        PyErr_SetObject(st->mqtt_error, error);
    Py_XDECREF(number);
    Py_XDECREF(text);
    Py_DECREF(error);
    return NULL;
}

static PyObject *text_of(pn_span s) { return PyUnicode_DecodeUTF8((const char *)s.p, (Py_ssize_t)s.n, NULL); }

static PyObject *bytes_of(pn_span s) { return PyBytes_FromStringAndSize((const char *)s.p, (Py_ssize_t)s.n); }

/* Converters for PyArg_Parse…: the protocol level, None meaning 0; and a size limit in bytes. */
static int convert_version(PyObject *value, void *out) {
    long version = 0;
    if (value != Py_None) {
        version = PyLong_AsLong(value);
        if (version == -1 && PyErr_Occurred()) return 0;
        if (version < PN_V31 || version > PN_V5) {
            PyErr_Format(PyExc_ValueError, "version is %ld, must be 3, 4, 5 or None", version);
            return 0;
        }
    }
    *(uint8_t *)out = (uint8_t)version;
    return 1;
}

static int convert_size(PyObject *value, void *out) {
    Py_ssize_t size = PyLong_AsSsize_t(value);
    if (size == -1 && PyErr_Occurred()) return 0;
    if (size < 2) {
        PyErr_Format(PyExc_ValueError, "max_size is %zd, the smallest packet has 2 bytes", size);
        return 0;
    }
    *(uint32_t *)out = size < (Py_ssize_t)PN_PACKET_SIZE_MAX ? (uint32_t)size : PN_PACKET_SIZE_MAX;
    return 1;
}

/* ==== Packets as dictionaries: the fields ======================================================================= */

/* How a member of pn_packet looks in Python. */
enum kind {
    FLAG,    /* bool: bool */
    BYTE,    /* uint8_t: int */
    TWO,     /* uint16_t: int */
    ID,      /* uint16_t: int, None for 0 */
    TEXT,    /* span: str */
    DATA,    /* span: bytes */
    CODES,   /* span: list of int */
    PROPS,   /* pn_props: list of [name, value] */
    FILTERS, /* span: list of dict or of str */
    WILL     /* has_will: dict or None */
};

typedef struct field {
    uint8_t key, kind;
    uint8_t at;     /* offset in pn_packet */
    uint8_t has;    /* offset of the bool that says whether it is there, else None; 0: it always is */
    uint16_t types; /* bit n: packets of type n have it */
} field;

#define AT(member) offsetof(pn_packet, member)
#define T(type) (1u << PN_##type)
#define T_ACK (T(PUBACK) | T(PUBREC) | T(PUBREL) | T(PUBCOMP))
#define T_SUB (T(SUBSCRIBE) | T(UNSUBSCRIBE))
#define T_SUBACK (T(SUBACK) | T(UNSUBACK))
#define T_NO_PING (0xFFFFu & ~(T(PINGREQ) | T(PINGRESP)))

static const field packet_fields[] = {
    {K_version, BYTE, AT(version), 0, T(CONNECT)},
    {K_clean_start, FLAG, AT(clean_start), 0, T(CONNECT)},
    {K_keep_alive, TWO, AT(keep_alive), 0, T(CONNECT)},
    {K_client_id, TEXT, AT(client_id), 0, T(CONNECT)},
    {K_session_present, FLAG, AT(session_present), 0, T(CONNACK)},
    {K_dup, FLAG, AT(dup), 0, T(PUBLISH)},
    {K_qos, BYTE, AT(qos), 0, T(PUBLISH)},
    {K_retain, FLAG, AT(retain), 0, T(PUBLISH)},
    {K_topic, TEXT, AT(topic), 0, T(PUBLISH)},
    {K_id, ID, AT(id), 0, T(PUBLISH) | T_ACK | T_SUB | T_SUBACK},
    {K_reason, BYTE, AT(reason), 0, T(CONNACK) | T_ACK | T(DISCONNECT) | T(AUTH)},
    {K_properties, PROPS, AT(props), 0, T_NO_PING},
    {K_payload, DATA, AT(payload), 0, T(PUBLISH)},
    {K_filters, FILTERS, AT(filters), 0, T_SUB},
    {K_reasons, CODES, AT(payload), 0, T_SUBACK},
    {K_will, WILL, AT(has_will), AT(has_will), T(CONNECT)},
    {K_username, TEXT, AT(username), AT(has_username), T(CONNECT)},
    {K_password, DATA, AT(password), AT(has_password), T(CONNECT)},
};

static const field will_fields[] = {
    {K_qos, BYTE, AT(will_qos), 0, T(CONNECT)},
    {K_retain, FLAG, AT(will_retain), 0, T(CONNECT)},
    {K_properties, PROPS, AT(will_props), 0, T(CONNECT)},
    {K_topic, TEXT, AT(will_topic), 0, T(CONNECT)},
    {K_payload, DATA, AT(will_payload), 0, T(CONNECT)},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ==== Packets to dictionaries =================================================================================== */

/* Appends `item` to `list` and gives up the reference to it; NULL for `item` is an error already set. */
static int append(PyObject *list, PyObject *item) {
    int result = item ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return result;
}

static PyObject *value_of_prop(const pn_prop *prop) {
    switch ((enum pn_form)pn_prop_form(prop->id)) {
    case PN_PAIR: return Py_BuildValue("[NN]", text_of(prop->key), text_of(prop->value));
    case PN_STRING: return text_of(prop->value);
    case PN_BINARY: return bytes_of(prop->value);
    default: return PyLong_FromUnsignedLong(prop->num);
    }
}

static PyObject *list_of_props(core_state *st, const pn_props *props) {
    PyObject *list = PyList_New(0);
    uint32_t at = 0;
    for (pn_prop prop; list && pn_prop_next(props, &at, &prop);)
        if (append(list, Py_BuildValue("[ON]", st->props[prop.id], value_of_prop(&prop)))) Py_CLEAR(list);
    return list;
}

static PyObject *dict_of_filter(core_state *st, const pn_filter *f) {
    return Py_BuildValue("{O:N,O:i,O:O,O:O,O:i}", st->keys[K_filter], text_of(f->filter), st->keys[K_qos], f->qos,
                         st->keys[K_no_local], f->no_local ? Py_True : Py_False, st->keys[K_retain_as_published],
                         f->retain_as_published ? Py_True : Py_False, st->keys[K_retain_handling], f->retain_handling);
}

static PyObject *list_of_filters(core_state *st, const pn_packet *p) {
    PyObject *list = PyList_New(0);
    uint32_t at = 0;
    for (pn_filter f; list && pn_filter_next(p, &at, &f);)
        if (append(list, p->type == PN_SUBSCRIBE ? dict_of_filter(st, &f) : text_of(f.filter))) Py_CLEAR(list);
    return list;
}

static PyObject *list_of_codes(pn_span codes) {
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list && i < codes.n; i++)
        if (append(list, PyLong_FromLong(codes.p[i]))) Py_CLEAR(list);
    return list;
}

static int fields_to_dict(core_state *st, const field *fields, size_t count, const pn_packet *p, PyObject *dict);

static PyObject *dict_of_will(core_state *st, const pn_packet *p) {
    PyObject *dict = PyDict_New();
    if (dict && fields_to_dict(st, will_fields, COUNT(will_fields), p, dict)) Py_CLEAR(dict);
    return dict;
}

static PyObject *value_of_field(core_state *st, const field *f, const pn_packet *p) {
    const char *at = (const char *)p + f->at;
    if (f->has && !*(const bool *)((const char *)p + f->has)) Py_RETURN_NONE;
    switch ((enum kind)f->kind) {
    case FLAG: return PyBool_FromLong(*(const bool *)at);
    case BYTE: return PyLong_FromLong(*(const uint8_t *)at);
    case TWO: return PyLong_FromLong(*(const uint16_t *)at);
    case ID:
        if (!p->id) Py_RETURN_NONE;
        return PyLong_FromLong(p->id);
    case TEXT: return text_of(*(const pn_span *)at);
    case DATA: return bytes_of(*(const pn_span *)at);
    case CODES: return list_of_codes(*(const pn_span *)at);
    case PROPS: return list_of_props(st, (const pn_props *)at);
    case FILTERS: return list_of_filters(st, p);
    case WILL: return dict_of_will(st, p);
    }
    Py_UNREACHABLE();
}

static int fields_to_dict(core_state *st, const field *fields, size_t count, const pn_packet *p, PyObject *dict) {
    for (const field *f = fields; f < fields + count; f++) {
        if (!(f->types >> p->type & 1)) continue;
        PyObject *value = value_of_field(st, f, p);
        int failed = value ? PyDict_SetItem(dict, st->keys[f->key], value) : -1;
        Py_XDECREF(value);
        if (failed) return -1;
    }
    return 0;
}

/* A decoded packet as a dictionary that owns all it shows. */
static PyObject *dict_of_packet(core_state *st, const pn_packet *p) {
    PyObject *dict = PyDict_New();
    if (dict && (PyDict_SetItem(dict, st->keys[K_type], st->types[p->type]) ||
                 fields_to_dict(st, packet_fields, COUNT(packet_fields), p, dict)))
        Py_CLEAR(dict);
    return dict;
}

/* ==== Dictionaries to packets =================================================================================== */

/* A packet under construction. Its spans point into the objects of `keep` and into `wire`. */
typedef struct packing {
    core_state *st;
    pn_packet packet;
    PyObject *keep[2]; /* owned copies of the packet's dictionary and of the will's: they keep the values alive */
    pn_buf wire[2];    /* owned: properties; properties of the will, filters or reason codes */
} packing;

static void packing_free(packing *k) {
    for (size_t i = 0; i < COUNT(k->keep); i++) Py_XDECREF(k->keep[i]);
    for (size_t i = 0; i < COUNT(k->wire); i++) pn_buf_free(&k->wire[i]);
}

/* The value at `key`, borrowed from the dictionary; NULL with KeyError when it is missing. */
static PyObject *item_of(core_state *st, PyObject *dict, enum key key) {
    PyObject *value = PyDict_GetItemWithError(dict, st->keys[key]);
    if (!value && !PyErr_Occurred()) PyErr_Format(PyExc_KeyError, "the packet has no %R", st->keys[key]);
    return value;
}

static int number_of(core_state *st, PyObject *value, uint32_t max, PyObject *name, uint32_t *out) {
    if (!PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%U must be int, not %s", name, Py_TYPE(value)->tp_name);
        return -1;
    }
    int over;
    long long number = PyLong_AsLongLongAndOverflow(value, &over);
    if (over || number < 0 || number > (long long)max) {
        (void)raise_mqtt(st, PN_PROTOCOL_ERROR, "%U is %S, must be 0 to %lu", name, value, (unsigned long)max);
        return -1;
    }
    *out = (uint32_t)number;
    return 0;
}

/* The UTF-8 of a str or the content of a bytes object, borrowed from it. */
static int span_of(core_state *st, PyObject *value, bool text, PyObject *name, pn_span *out) {
    Py_ssize_t n;
    const char *p;
    if (text ? !PyUnicode_Check(value) : !PyBytes_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%U must be %s, not %s", name, text ? "str" : "bytes", Py_TYPE(value)->tp_name);
        return -1;
    }
    if (text) {
        p = PyUnicode_AsUTF8AndSize(value, &n);
        if (!p) return -1;
    } else {
        p = PyBytes_AS_STRING(value);
        n = PyBytes_GET_SIZE(value);
    }
    if (n > (Py_ssize_t)PN_REMAINING_LENGTH_MAX) {
        (void)raise_mqtt(st, PN_PACKET_TOO_LARGE, "%U has %zd bytes", name, n);
        return -1;
    }
    *out = pn_span_of(p, (size_t)n);
    return 0;
}

/* A span that goes behind a two-byte length. */
static int field_of(core_state *st, PyObject *value, bool text, PyObject *name, pn_span *out) {
    if (span_of(st, value, text, name, out)) return -1;
    if (out->n <= PN_STRING_MAX) return 0;
    (void)raise_mqtt(st, PN_PACKET_TOO_LARGE, "%U has %lu bytes, at most %lu go into its field", name,
                     (unsigned long)out->n, (unsigned long)PN_STRING_MAX);
    return -1;
}

static int check_list(PyObject *value, PyObject *name) {
    if (PyList_Check(value) || PyTuple_Check(value)) return 0;
    PyErr_Format(PyExc_TypeError, "%U must be a list, not %s", name, Py_TYPE(value)->tp_name);
    return -1;
}

/* Room for `n` bytes at the tail of `wire`, which are then part of it. */
static uint8_t *extend(pn_buf *wire, size_t n) {
    uint8_t *at = pn_buf_room(wire, n);
    if (!at) {
        (void)PyErr_NoMemory();
        return NULL;
    }
    wire->tail += (uint32_t)n;
    return at;
}

static int prop_id(core_state *st, PyObject *name) {
    for (int id = 0; id < PN_PROPERTY_IDS; id++)
        if (st->props[id] && PyUnicode_Check(name) && PyUnicode_Compare(st->props[id], name) == 0) return id;
    PyErr_Format(PyExc_ValueError, "there is no property %R", name);
    return -1;
}

/* Two items of a list or tuple, borrowed; -1 with ValueError when it is not two. */
static int pair_of(PyObject *value, PyObject *name, PyObject **first, PyObject **second) {
    if (check_list(value, name)) return -1;
    if (PySequence_Fast_GET_SIZE(value) != 2) {
        PyErr_Format(PyExc_ValueError, "%U: two items needed, not %zd", name, PySequence_Fast_GET_SIZE(value));
        return -1;
    }
    *first = PySequence_Fast_GET_ITEM(value, 0);
    *second = PySequence_Fast_GET_ITEM(value, 1);
    return 0;
}

static int pack_prop(core_state *st, PyObject *entry, pn_buf *wire) {
    static const uint32_t most[] = {[PN_BYTE] = UINT8_MAX, [PN_TWO] = UINT16_MAX, [PN_FOUR] = UINT32_MAX,
                                    [PN_VARINT] = PN_REMAINING_LENGTH_MAX};
    PyObject *name, *value, *key_object, *value_object;
    if (pair_of(entry, st->keys[K_properties], &name, &value)) return -1;
    int id = prop_id(st, name);
    if (id < 0) return -1;
    uint8_t form = pn_prop_form((uint8_t)id);
    pn_span key = {0}, content = {0};
    uint32_t num = 0;
    if (form < PN_BINARY) {
        if (number_of(st, value, most[form], name, &num)) return -1;
    } else if (form == PN_PAIR) {
        if (pair_of(value, name, &key_object, &value_object) || field_of(st, key_object, true, name, &key) ||
            field_of(st, value_object, true, name, &content))
            return -1;
    } else if (field_of(st, value, form == PN_STRING, name, &content)) {
        return -1;
    }
    uint8_t *at = extend(wire, pn_prop_size((uint8_t)id, key, content, num));
    if (!at) return -1;
    (void)pn_prop_put(at, (uint8_t)id, key, content, num);
    return 0;
}

static int pack_text(core_state *st, PyObject *value, PyObject *name, pn_buf *wire) {
    pn_span text;
    if (field_of(st, value, true, name, &text)) return -1;
    uint8_t *at = extend(wire, 2 + (size_t)text.n);
    if (!at) return -1;
    at[0] = (uint8_t)(text.n >> 8);
    at[1] = (uint8_t)text.n;
    if (text.n) memcpy(at + 2, text.p, text.n);
    return 0;
}

static int pack_byte(core_state *st, PyObject *value, PyObject *name, pn_buf *wire) {
    uint32_t number;
    uint8_t *at;
    if (number_of(st, value, UINT8_MAX, name, &number) || !(at = extend(wire, 1))) return -1;
    *at = (uint8_t)number;
    return 0;
}

static int pack_subscription(core_state *st, PyObject *entry, pn_buf *wire) {
    static const struct { uint8_t key, shift; uint8_t max; } options[] = {
        {K_qos, 0, 3}, {K_no_local, 2, 1}, {K_retain_as_published, 3, 1}, {K_retain_handling, 4, 3}};
    if (!PyDict_Check(entry)) {
        PyErr_Format(PyExc_TypeError, "a filter of SUBSCRIBE must be a dict, not %s", Py_TYPE(entry)->tp_name);
        return -1;
    }
    PyObject *filter = item_of(st, entry, K_filter);
    if (!filter || pack_text(st, filter, st->keys[K_filter], wire)) return -1;
    uint32_t byte = 0;
    for (size_t i = 0; i < COUNT(options); i++) {
        uint32_t number;
        PyObject *value = item_of(st, entry, options[i].key);
        if (!value || number_of(st, value, options[i].max, st->keys[options[i].key], &number)) return -1;
        byte |= number << options[i].shift;
    }
    uint8_t *at = extend(wire, 1);
    if (!at) return -1;
    *at = (uint8_t)byte;
    return 0;
}

/* Every item of the list `value` in wire form. */
static int pack_list(packing *k, const field *f, PyObject *value, pn_buf *wire, pn_span *out) {
    core_state *st = k->st;
    PyObject *name = st->keys[f->key];
    if (check_list(value, name)) return -1;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(value); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(value, i));
        int failed = f->kind == PROPS                   ? pack_prop(st, item, wire)
                     : f->kind == CODES                 ? pack_byte(st, item, name, wire)
                     : k->packet.type == PN_UNSUBSCRIBE ? pack_text(st, item, name, wire)
                                                        : pack_subscription(st, item, wire);
        Py_DECREF(item);
        if (failed) return -1;
    }
    *out = pn_span_of(pn_buf_head(wire), pn_buf_len(wire));
    return 0;
}

static int fields_from_dict(packing *k, const field *fields, size_t count, PyObject *dict, pn_buf *props);

static int pack_will(packing *k, PyObject *value) {
    if (!PyDict_Check(value)) {
        PyErr_Format(PyExc_TypeError, "will must be a dict or None, not %s", Py_TYPE(value)->tp_name);
        return -1;
    }
    k->keep[1] = PyDict_Copy(value);
    return k->keep[1] ? fields_from_dict(k, will_fields, COUNT(will_fields), k->keep[1], &k->wire[1]) : -1;
}

static int pack_field(packing *k, const field *f, PyObject *value, pn_buf *props) {
    char *at = (char *)&k->packet + f->at;
    PyObject *name = k->st->keys[f->key];
    uint32_t number = 0;
    if (f->has) {
        *(bool *)((char *)&k->packet + f->has) = value != Py_None;
        if (value == Py_None) return 0;
    }
    switch ((enum kind)f->kind) {
    case FLAG:
        if (number_of(k->st, value, 1, name, &number)) return -1;
        *(bool *)at = number;
        return 0;
    case BYTE:
        if (number_of(k->st, value, UINT8_MAX, name, &number)) return -1;
        *(uint8_t *)at = (uint8_t)number;
        return 0;
    case ID:
        if (value == Py_None) return 0;
        /* fall through */
    case TWO:
        if (number_of(k->st, value, UINT16_MAX, name, &number)) return -1;
        *(uint16_t *)at = (uint16_t)number;
        return 0;
    case TEXT: return span_of(k->st, value, true, name, (pn_span *)at);
    case DATA: return span_of(k->st, value, false, name, (pn_span *)at);
    case PROPS: return pack_list(k, f, value, props, &((pn_props *)at)->raw);
    case CODES:
    case FILTERS: return pack_list(k, f, value, &k->wire[1], (pn_span *)at);
    case WILL: return pack_will(k, value);
    }
    Py_UNREACHABLE();
}

static int fields_from_dict(packing *k, const field *fields, size_t count, PyObject *dict, pn_buf *props) {
    for (const field *f = fields; f < fields + count; f++) {
        if (!(f->types >> k->packet.type & 1)) continue;
        PyObject *value = item_of(k->st, dict, f->key);
        if (!value || pack_field(k, f, value, props)) return -1;
    }
    return 0;
}

static int packet_type(core_state *st, PyObject *name) {
    for (int type = 0; type < PN_TYPES; type++)
        if (st->types[type] && PyUnicode_Check(name) && PyUnicode_Compare(st->types[type], name) == 0) return type;
    PyErr_Format(PyExc_ValueError, "there is no packet type %R", name);
    return -1;
}

static int pack(packing *k, PyObject *packet) {
    k->keep[0] = PyDict_Copy(packet);
    PyObject *name = k->keep[0] ? item_of(k->st, k->keep[0], K_type) : NULL;
    int type = name ? packet_type(k->st, name) : -1;
    if (type < 0) return -1;
    k->packet.type = (uint8_t)type;
    return fields_from_dict(k, packet_fields, COUNT(packet_fields), k->keep[0], &k->wire[0]);
}

/* ==== decode and encode ========================================================================================= */

/* Raises what pn_packet_decode or pn_packet_encode answered. Returns NULL. */
static PyObject *raise_codec(core_state *st, int64_t result, const char *what) {
    const char *name = pn_reason_name((uint8_t)-result);
    return raise_mqtt(st, (int)-result, "%s: %s (0x%x)", what, name ? name : "unknown", (int)-result);
}

PyDoc_STRVAR(decode_doc,
"decode(data, version=None, max_size=PACKET_SIZE_MAX)\n--\n\n"
"Reads one packet from the head of data: (packet, bytes consumed), or None when more bytes are needed.\n\n"
"version is the protocol level of the connection (3, 4 or 5), or None before CONNECT. A packet of more than max_size\n"
"bytes is refused as soon as its header is there. Raises MqttError.");

static PyObject *core_decode(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"data", "version", "max_size", NULL};
    core_state *st = state_of_module(module);
    Py_buffer data;
    uint8_t version = 0;
    uint32_t max_size = PN_PACKET_SIZE_MAX;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*|O&O&:decode", names, &data, convert_version, &version,
                                     convert_size, &max_size))
        return NULL;
    PyObject *result = NULL;
    pn_packet p;
    int64_t used = pn_packet_decode(data.buf, (size_t)data.len, version, max_size, &p);
    if (used > 0) {
        PyObject *dict = dict_of_packet(st, &p);
        result = dict ? Py_BuildValue("(NL)", dict, (long long)used) : NULL;
    } else if (used == 0) {
        result = Py_NewRef(Py_None);
    } else {
        (void)raise_codec(st, used, "not a packet");
    }
    PyBuffer_Release(&data);
    return result;
}

PyDoc_STRVAR(encode_doc,
"encode(packet, version)\n--\n\n"
"The packet as bytes, in the shortest form that the standard allows. A CONNECT goes by its own version.\n\n"
"What encode returns, decode accepts. Raises MqttError when the packet breaks the standard, KeyError, TypeError or\n"
"ValueError when the dictionary is not a packet.");

static PyObject *encode_packing(packing *k, uint8_t version) {
    const pn_packet *p = &k->packet;
    if (version < PN_V5 && (p->props.raw.n || p->will_props.raw.n))
        return raise_mqtt(k->st, PN_PROTOCOL_ERROR, "properties before MQTT 5.0");
    int64_t size = pn_packet_encode(p, version, NULL, 0);
    if (size < 0) return raise_codec(k->st, size, "cannot be written");
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!bytes) return NULL;
    uint8_t *at = (uint8_t *)PyBytes_AS_STRING(bytes);
    (void)pn_packet_encode(p, version, at, (size_t)size);
    /* The encoder trusts text and properties, Python's callers are not trusted: the decoder is the judge. */
    pn_packet again;
    int64_t verdict = pn_packet_decode(at, (size_t)size, version, PN_PACKET_SIZE_MAX, &again);
    if (verdict != size) {
        Py_DECREF(bytes);
        return raise_codec(k->st, verdict < 0 ? verdict : -PN_MALFORMED_PACKET, "nobody would accept it");
    }
    return bytes;
}

static PyObject *core_encode(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"packet", "version", NULL};
    PyObject *packet;
    uint8_t version = 0;
    packing k = {.st = state_of_module(module)};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O&:encode", names, &PyDict_Type, &packet, convert_version, &version))
        return NULL;
    PyObject *bytes = NULL;
    if (pack(&k, packet) == 0) bytes = encode_packing(&k, k.packet.type == PN_CONNECT ? k.packet.version : version);
    packing_free(&k);
    return bytes;
}

/* ==== Decoder: packets out of a stream of chunks ================================================================ */

typedef struct decoder {
    PyObject_HEAD
    pn_buf input;      /* owned: the beginning of a packet that is not complete */
    uint32_t max_size; /* bytes of a packet */
    uint8_t version;   /* 0 before CONNECT */
    bool busy;         /* a feed is under way: the collector may run others' code, which must not feed */
    int64_t error;     /* what ended the stream: minus a reason code */
} decoder;

PyDoc_STRVAR(decoder_doc,
"Decoder(version=None, max_size=PACKET_SIZE_MAX)\n--\n\n"
"Packets out of a stream of chunks, cut anywhere. With version None the first packet must be a CONNECT, which sets it.\n"
"Holds at most one incomplete packet.");

PyDoc_STRVAR(feed_doc,
"feed($self, chunk, /)\n--\n\n"
"The packets that chunk completes, in order. Raises MqttError at the first that breaks the standard; packets before it\n"
"in the same chunk go with it, and every later call raises the same error.");

static int decoder_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"version", "max_size", NULL};
    decoder *d = (decoder *)self;
    uint8_t version = 0;
    uint32_t max_size = PN_PACKET_SIZE_MAX;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O&O&:Decoder", names, convert_version, &version, convert_size,
                                     &max_size))
        return -1;
    if (d->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the decoder is being fed");
        return -1;
    }
    pn_buf_free(&d->input);
    d->version = version;
    d->max_size = max_size;
    d->error = 0;
    return 0;
}

static void decoder_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pn_buf_free(&((decoder *)self)->input);
    type->tp_free(self);
    Py_DECREF(type);
}

static int decoder_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    return 0;
}

/* Appends every packet that is complete at the head of `data` to `list`; bytes used, or -1. */
static Py_ssize_t decode_all(decoder *d, const uint8_t *data, size_t n, PyObject *list) {
    core_state *st = state_of((PyObject *)d);
    size_t used = 0;
    for (;;) {
        pn_packet p;
        int64_t size = pn_packet_decode(data + used, n - used, d->version, d->max_size, &p);
        if (size == 0) return (Py_ssize_t)used;
        if (size < 0) {
            d->error = size;
            (void)raise_codec(st, size, "not a packet");
            return -1;
        }
        if (append(list, dict_of_packet(st, &p))) return -1;
        if (p.type == PN_CONNECT) d->version = p.version;
        used += (size_t)size;
    }
}

/* The work of feed: whole packets are read where they lie, only an incomplete one is kept. */
static int decoder_take(decoder *d, const uint8_t *data, size_t n, PyObject *list) {
    bool held = pn_buf_len(&d->input) > 0;
    if (n == 0) return 0;
    if (held && !pn_buf_add(&d->input, data, n)) goto no_memory;
    Py_ssize_t used = held ? decode_all(d, pn_buf_head(&d->input), pn_buf_len(&d->input), list)
                           : decode_all(d, data, n, list);
    if (used < 0) return -1;
    if (held)
        pn_buf_drop(&d->input, (size_t)used);
    else if (!pn_buf_add(&d->input, data + used, n - (size_t)used))
        goto no_memory;
    if (pn_buf_len(&d->input) == 0) pn_buf_free(&d->input);
    return 0;
no_memory:
    (void)PyErr_NoMemory();
    return -1;
}

static PyObject *decoder_feed(PyObject *self, PyObject *chunk) {
    decoder *d = (decoder *)self;
    Py_buffer data;
    if (d->error) return raise_codec(state_of(self), d->error, "the stream has ended");
    if (d->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the decoder is being fed");
        return NULL;
    }
    if (PyObject_GetBuffer(chunk, &data, PyBUF_SIMPLE)) return NULL;
    d->busy = true;
    PyObject *list = PyList_New(0);
    if (list && decoder_take(d, data.buf, (size_t)data.len, list)) Py_CLEAR(list);
    d->busy = false;
    PyBuffer_Release(&data);
    return list;
}

static PyObject *decoder_get_version(PyObject *self, void *closure) {
    (void)closure;
    decoder *d = (decoder *)self;
    if (!d->version) Py_RETURN_NONE;
    return PyLong_FromLong(d->version);
}

static PyMethodDef decoder_methods[] = {
    {"feed", decoder_feed, METH_O, feed_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef decoder_getset[] = {
    {"version", decoder_get_version, NULL, "The protocol level, None before CONNECT.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot decoder_slots[] = {
    {Py_tp_doc, (void *)decoder_doc},     {Py_tp_init, decoder_init},         {Py_tp_dealloc, decoder_dealloc},
    {Py_tp_traverse, decoder_traverse},   {Py_tp_methods, decoder_methods},   {Py_tp_getset, decoder_getset},
    {0, NULL},
};

static PyType_Spec decoder_spec = {
    .name = "peanutd._core.Decoder",
    .basicsize = sizeof(decoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = decoder_slots,
};

/* ==== Broker and Link: broker.h for Python ====================================================================== */

/* A Link owns its pn_link and dies with it; the pn_link's owner is the Link, borrowed. So every event's owner is a live object.
 *
 * With a native loop in the house (native/loop.h), another thread calls the core as well. So every call here is between `enter` and `leave` or
 * `leave_with_events`, and in between nothing is done that could run Python's collector or let go of Python's own lock: only objects that the
 * collector does not know (bytes, str, int) are made there. */

static int64_t enter(BrokerObject *self, int64_t now) { return pn_house_enter(&self->house, now); }

static void leave(BrokerObject *self) { pn_house_leave(&self->house); }

/* The native loops for whom there is something, under the lock; and after it. */
static uint32_t due_loops(const BrokerObject *self) {
#ifdef PN_NATIVE
    if (self->house.loops) return pn_loops_due(self->house.loops);
#endif
    (void)self;
    return 0;
}

static void wake_loops(const BrokerObject *self, uint32_t which) {
#ifdef PN_NATIVE
    if (which) pn_loops_wake(self->house.loops, which);
#endif
    (void)self, (void)which;
}

/* The same where the time may not have been said (0): then it is the latest. */
static int64_t enter_late(BrokerObject *self, int64_t now) {
    int64_t at = enter(self, now);
    return now ? at : pn_broker_now(self->house.broker);
}

/* Ends what `enter` has begun, with ValueError. Returns NULL. */
static PyObject *leave_without(BrokerObject *self, const char *why) {
    leave(self);
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

static bool span_arg(PyObject *o, pn_span *out) {
    Py_ssize_t n;
    const char *p = PyUnicode_AsUTF8AndSize(o, &n);
    if (!p) return false;
    if (n > (Py_ssize_t)PN_STRING_MAX) {
        PyErr_Format(PyExc_ValueError, "a string of %zd bytes: MQTT carries at most %u", n, PN_STRING_MAX);
        return false;
    }
    *out = pn_span_of(p, (size_t)n);
    return true;
}

typedef struct raised {
    PyObject *owner, *text; /* strong; a text may be NULL, with an exception set */
    pn_owner *rests;        /* in place of an owner, of one that rests: a reference */
    uint8_t kind, reason;
} raised;

#ifdef PN_NATIVE
/* The owner of an event, or one that has none for the moment and is not to go meanwhile. */
static void note_owner(raised *r, pn_owner *owner) {
    r->owner = Py_XNewRef((PyObject *)owner->object);
    r->rests = owner->object ? NULL : owner;
    if (r->rests) pn_guest_hold(owner);
}

/* The same when the core has been left: who rested is awake now. NULL with an exception set. */
static bool find_owner(raised *r) {
    if (!r->rests) return true;
    if (!PyErr_Occurred()) r->owner = (PyObject *)pn_guest_wake(r->rests);
    pn_guest_let_go(r->rests);
    return r->owner != NULL;
}
#else
static void note_owner(raised *r, pn_owner *owner) { r->owner = Py_NewRef((PyObject *)owner->object); }
static bool find_owner(raised *r) { return r->owner != NULL; }
#endif

/* Ends what `enter` has begun. The events raised so far, as the tuple that every such call returns. */
static PyObject *leave_with_events(BrokerObject *self) {
    raised few[8], *all = few;
    Py_ssize_t count = 0, room = COUNT(few);
    bool whole = true;
    for (pn_event e; pn_house_event(&self->house, &e);) {
        if (count == room) {
            raised *more = PyMem_Malloc((size_t)room * 2 * sizeof *more);
            if (!more) {
                whole = false;
                break;
            }
            memcpy(more, all, (size_t)room * sizeof *more);
            if (all != few) PyMem_Free(all);
            all = more;
            room *= 2;
        }
        all[count] = (raised){.text = text_of(e.text), .kind = e.kind, .reason = e.reason};
        note_owner(&all[count++], e.owner);
    }
    leave(self);
    for (Py_ssize_t i = 0; i < count; i++) whole = find_owner(&all[i]) && whole;
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *one = whole && tuple && all[i].text ? Py_BuildValue("(iOiO)", all[i].kind, all[i].owner, all[i].reason, all[i].text) : NULL;
        Py_XDECREF(all[i].owner);
        Py_XDECREF(all[i].text);
        if (!one) whole = false;
        if (tuple) PyTuple_SET_ITEM(tuple, i, one);
    }
    if (all != few) PyMem_Free(all);
    if (whole && tuple) return tuple;
    Py_XDECREF(tuple);
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

/* --- Link --- */

static int Link_traverse(LinkObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->broker);
    Py_VISIT(self->owner);
    return 0;
}

static int Link_clear(LinkObject *self) {
    Py_CLEAR(self->owner);
    return 0;
}

static void Link_dealloc(LinkObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    /* Dropped without lost(): the same, but nobody hears of it. */
    if (self->link) {
        enter(self->broker, 0);
        pn_link_drop(self->link, pn_broker_now(self->broker->house.broker));
        leave(self->broker);
    }
#ifdef PN_NATIVE
    if (self->broker->house.loops) pn_loops_forget(self->broker->house.loops, self->own);
    if (self->guest) pn_guest_unlink(self);
#endif
    Py_CLEAR(self->owner);
    Py_XDECREF(self->broker);
    type->tp_free(self);
    Py_DECREF(type);
}

/* `now` as the last positional argument of a call that takes nothing else of interest. */
static bool now_arg(PyObject *o, int64_t *now) {
    *now = PyLong_AsLongLong(o);
    return !(*now == -1 && PyErr_Occurred());
}

static PyObject *Link_feed(LinkObject *self, PyObject *const *args, Py_ssize_t n) {
    int64_t now;
    Py_buffer view;
    if (n != 2) return PyErr_Format(PyExc_TypeError, "feed() takes data and now");
    if (!now_arg(args[1], &now) || PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) return NULL;
    now = enter(self->broker, now);
    if (self->link) pn_link_feed(self->link, view.buf, (size_t)view.len, now);
    PyObject *result = leave_with_events(self->broker);
    PyBuffer_Release(&view);
    return result;
}

/* Binary data of a property. */
static bool data_arg(const char *p, Py_ssize_t n, pn_span *out) {
    if (n > (Py_ssize_t)PN_STRING_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd bytes: MQTT carries at most %u", n, PN_STRING_MAX);
        return false;
    }
    *out = pn_span_of(p, (size_t)n);
    return true;
}

static PyObject *Link_accept(LinkObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"session", "identity", "rules", "assigned_client_id", "now", "authentication_data",
                            "response_information", NULL};
    PyObject *session, *identity, *assigned = Py_None, *information = Py_None;
    const char *proof = NULL;
    Py_ssize_t proof_n = 0;
    int rules;
    long long now = 0; /* not said: the latest */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UUi|OLy#O:accept", names, &session, &identity, &rules, &assigned, &now,
                                     &proof, &proof_n, &information)) {
        return NULL;
    }
    pn_verdict v = {0};
    if (!span_arg(session, &v.session) || !span_arg(identity, &v.identity)) return NULL;
    if (assigned != Py_None && !span_arg(assigned, &v.assigned)) return NULL;
    if (information != Py_None && !span_arg(information, &v.response_information)) return NULL;
    if (!data_arg(proof, proof_n, &v.proof)) return NULL;
    if (rules < 0 || rules >= PN_RULE_SETS) {
        return PyErr_Format(PyExc_ValueError, "rules is a slot from 0 to %d, not %d", PN_RULE_SETS - 1, rules);
    }
    v.rules = (uint8_t)rules;
    now = enter_late(self->broker, now);
    pn_packet p;
    if (!self->link || !pn_link_connect(self->link, &p)) return leave_without(self->broker, "no CONNECT waits for a verdict on this link");
    pn_link_accept(self->link, &v, now);
    return leave_with_events(self->broker);
}

static PyObject *Link_refuse(LinkObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"reason", "text", "now", NULL};
    PyObject *text = NULL;
    unsigned char reason;
    long long now = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "b|U$L:refuse", names, &reason, &text, &now)) return NULL;
    pn_span t = {0};
    if (text && !span_arg(text, &t)) return NULL;
    now = enter_late(self->broker, now);
    pn_packet p;
    if (!self->link || !pn_link_connect(self->link, &p)) return leave_without(self->broker, "no CONNECT waits for a verdict on this link");
    pn_link_refuse(self->link, reason, t, now);
    return leave_with_events(self->broker);
}

static PyObject *Link_close(LinkObject *self, PyObject *args) {
    unsigned char reason;
    long long now;
    PyObject *text = NULL;
    pn_span t = {0};
    if (!PyArg_ParseTuple(args, "bL|U:close", &reason, &now, &text) || (text && !span_arg(text, &t))) return NULL;
    now = enter(self->broker, now);
    if (self->link) pn_link_close(self->link, reason, t, now);
    return leave_with_events(self->broker);
}

/* challenge and authenticated: data, and now by keyword. */
static PyObject *answer_auth(LinkObject *self, PyObject *args, PyObject *kwargs, bool (*answer)(pn_link *, pn_span, int64_t)) {
    static char *names[] = {"data", "now", NULL};
    const char *data = NULL;
    Py_ssize_t n = 0;
    long long now = 0;
    pn_span d;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|y#$L", names, &data, &n, &now) || !data_arg(data, n, &d)) return NULL;
    now = enter_late(self->broker, now);
    if (!self->link || !answer(self->link, d, now)) return leave_without(self->broker, "nothing to authenticate waits on this link");
    return leave_with_events(self->broker);
}

static PyObject *Link_challenge(LinkObject *self, PyObject *args, PyObject *kwargs) {
    return answer_auth(self, args, kwargs, pn_link_challenge);
}

static PyObject *Link_authenticated(LinkObject *self, PyObject *args, PyObject *kwargs) {
    return answer_auth(self, args, kwargs, pn_link_authenticated);
}

static PyObject *Link_authentication(LinkObject *self, void *closure) {
    (void)closure;
    pn_span method, data;
    enter(self->broker, 0);
    bool waits = self->link && pn_link_proof(self->link, &method, &data);
    PyObject *name = waits ? text_of(method) : NULL, *proof = waits ? bytes_of(data) : NULL;
    leave(self->broker);
    if (!waits) Py_RETURN_NONE;
    return Py_BuildValue("(NN)", name, proof);
}

static PyObject *Link_proved_until(LinkObject *self, PyObject *args) {
    long long until, now;
    if (!PyArg_ParseTuple(args, "LL:proved_until", &until, &now)) return NULL;
    now = enter(self->broker, now);
    if (self->link) pn_link_proved_until(self->link, until, now);
    leave(self->broker);
    Py_RETURN_NONE;
}

static PyObject *Link_lost(LinkObject *self, PyObject *arg) {
    int64_t now;
    if (!now_arg(arg, &now)) return NULL;
    now = enter(self->broker, now);
    if (self->link) {
        pn_link *link = self->link;
        self->link = NULL;
        pn_link_lost(link, now);
    }
    return leave_with_events(self->broker);
}

static PyObject *Link_take(LinkObject *self, PyObject *args) {
    Py_ssize_t limit = PY_SSIZE_T_MAX;
    if (!PyArg_ParseTuple(args, "|n:take", &limit)) return NULL;
    if (!self->link || limit <= 0) return PyBytes_FromStringAndSize(NULL, 0);
    enter(self->broker, 0);
    pn_span out = pn_link_output(self->link);
    size_t n = out.n < (size_t)limit ? out.n : (size_t)limit;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)out.p, (Py_ssize_t)n);
    if (bytes) pn_link_sent(self->link, n, pn_broker_now(self->broker->house.broker));
    leave(self->broker);
    return bytes;
}

static PyObject *Link_pending(LinkObject *self, void *closure) {
    (void)closure;
    enter(self->broker, 0);
    uint32_t n = self->link ? pn_link_output(self->link).n : 0;
    leave(self->broker);
    return PyLong_FromUnsignedLong(n);
}

static PyObject *Link_connect(LinkObject *self, void *closure) {
    (void)closure;
    pn_packet p;
    if (!self->link) Py_RETURN_NONE;
    PyObject *v = PyStructSequence_New((PyTypeObject *)state_of((PyObject *)self)->connect_type);
    if (!v) return NULL;
    enter(self->broker, 0);
    if (!pn_link_connect(self->link, &p)) {
        leave(self->broker);
        Py_DECREF(v);
        Py_RETURN_NONE;
    }
    pn_prop method;
    bool authenticates = pn_prop_find(&p.props, PN_AUTHENTICATION_METHOD, &method);
    pn_prop data;
    bool proves = pn_prop_find(&p.props, PN_AUTHENTICATION_DATA, &data);
    PyObject *items[] = {
        PyLong_FromLong(p.version),
        text_of(p.client_id),
        p.has_username ? text_of(p.username) : Py_NewRef(Py_None),
        p.has_password ? bytes_of(p.password) : Py_NewRef(Py_None),
        PyBool_FromLong(p.clean_start),
        PyLong_FromLong(p.keep_alive),
        p.has_will ? text_of(p.will_topic) : Py_NewRef(Py_None),
        authenticates ? text_of(method.value) : Py_NewRef(Py_None),
        proves ? bytes_of(data.value) : Py_NewRef(Py_None),
    };
    leave(self->broker);
    bool whole = true;
    for (Py_ssize_t i = 0; i < (Py_ssize_t)(sizeof items / sizeof *items); i++) {
        whole = whole && items[i];
        PyStructSequence_SetItem(v, i, items[i]); /* steals, NULL too */
    }
    if (!whole) Py_CLEAR(v);
    return v;
}

static PyStructSequence_Field connect_fields[] = {
    {"version", "protocol level: 3, 4 or 5"},
    {"client_id", "may be empty"},
    {"username", "or None"},
    {"password", "bytes, or None"},
    {"clean_start", "clean session before 5.0"},
    {"keep_alive", "seconds"},
    {"will_topic", "or None"},
    {"authentication_method", "or None"},
    {"authentication_data", "bytes, or None"},
    {NULL, NULL},
};
static PyStructSequence_Desc connect_desc = {"peanutd._core.Connect", "What a CONNECT asks for (5.0 3.1).", connect_fields, 9};

static PyMethodDef Link_methods[] = {
    {"feed", (PyCFunction)(void (*)(void))Link_feed, METH_FASTCALL, "feed(data, now) -> events. Bytes from the peer, in any split."},
    {"accept", (PyCFunction)(void (*)(void))Link_accept, METH_VARARGS | METH_KEYWORDS,
     "accept(*, session, identity, rules, assigned_client_id=None, now) -> events. Lets the client in."},
    {"refuse", (PyCFunction)(void (*)(void))Link_refuse, METH_VARARGS | METH_KEYWORDS,
     "refuse(reason, text='', *, now) -> events. CONNACK with the reason, and the end."},
    {"close", (PyCFunction)Link_close, METH_VARARGS, "close(reason, now, text='') -> events. Ends the link from our side."},
    {"challenge", (PyCFunction)(void (*)(void))Link_challenge, METH_VARARGS | METH_KEYWORDS,
     "challenge(data, *, now) -> events. Sends an AUTH and waits for the client's."},
    {"authenticated", (PyCFunction)(void (*)(void))Link_authenticated, METH_VARARGS | METH_KEYWORDS,
     "authenticated(data=b'', *, now) -> events. Ends a re-authentication with success."},
    {"proved_until", (PyCFunction)Link_proved_until, METH_VARARGS,
     "proved_until(until, now). When the proof of who the client is ends; a will delayed beyond that is dropped."},
    {"lost", (PyCFunction)Link_lost, METH_O, "lost(now) -> events. The socket is gone; the link is dead afterwards."},
    {"take", (PyCFunction)Link_take, METH_VARARGS, "take(limit) -> bytes. Removes and returns encoded output."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Link_members[] = {
    {"owner", T_OBJECT, offsetof(LinkObject, owner), READONLY, "what Broker.open was given"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Link_getset[] = {
    {"connect", (getter)Link_connect, NULL, "The CONNECT that waits for its verdict, or None.", NULL},
    {"authentication", (getter)Link_authentication, NULL, "(method, data) of the AUTH that waits to be judged, or None.", NULL},
    {"pending", (getter)Link_pending, NULL, "Bytes of output waiting in take().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Link_slots[] = {
    {Py_tp_doc, "One transport connection; made by Broker.open."},
    {Py_tp_dealloc, Link_dealloc},
    {Py_tp_traverse, Link_traverse},
    {Py_tp_clear, Link_clear},
    {Py_tp_methods, Link_methods},
    {Py_tp_members, Link_members},
    {Py_tp_getset, Link_getset},
    {0, NULL},
};
static PyType_Spec Link_spec = {
    "peanutd._core.Link", sizeof(LinkObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE, Link_slots};

/* --- Broker --- */

/* One of `limits` by its name in pn_limit_table. */
static bool set_limit(pn_limits *limits, PyObject *name, PyObject *value) {
    const pn_limit_row *row = pn_limit_table;
    while (row->name && PyUnicode_CompareWithASCIIString(name, row->name) != 0) row++;
    if (!row->name) {
        PyErr_Format(PyExc_TypeError, "there is no limit %R", name);
        return false;
    }
    long long number = PyLong_AsLongLong(value);
    if (number == -1 && PyErr_Occurred()) return false;
    if (number < row->least || number > row->most) {
        PyErr_Format(PyExc_ValueError, "%s is from %u to %u, not %lld", row->name, row->least, row->most, number);
        return false;
    }
    *(uint32_t *)((char *)limits + row->offset) = (uint32_t)number;
    return true;
}

static PyObject *Broker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args) || !kwargs) return PyErr_Format(PyExc_TypeError, "Broker() takes keywords only, and seed");
    pn_limits limits;
    pn_limits_default(&limits);
    uint64_t seed = 0;
    bool seeded = false;
    PyObject *name, *value;
    for (Py_ssize_t at = 0; PyDict_Next(kwargs, &at, &name, &value);) {
        if (PyUnicode_CompareWithASCIIString(name, "seed") == 0) {
            if (!PyBytes_Check(value) || PyBytes_GET_SIZE(value) < (Py_ssize_t)sizeof seed) {
                return PyErr_Format(PyExc_ValueError, "seed is %zu or more random bytes", sizeof seed);
            }
            memcpy(&seed, PyBytes_AS_STRING(value), sizeof seed);
            seeded = true;
        } else if (!set_limit(&limits, name, value)) {
            return NULL;
        }
    }
    if (!seeded) return PyErr_Format(PyExc_TypeError, "Broker() needs seed: 8 or more random bytes");
    BrokerObject *self = (BrokerObject *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    pn_lock_init(&self->house.lock);
    self->house.broker = pn_broker_new(&limits, seed);
    if (!self->house.broker) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void Broker_dealloc(BrokerObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->house.broker) pn_broker_free(self->house.broker); /* every Link, and the Loop, holds a reference to us, so there is none left */
    pn_lock_end(&self->house.lock);
    type->tp_free(self);
    Py_DECREF(type);
}

LinkObject *pn_new_link(BrokerObject *broker, PyObject *owner) {
    PyTypeObject *type = (PyTypeObject *)state_of((PyObject *)broker)->link_type;
    LinkObject *link = (LinkObject *)type->tp_alloc(type, 0);
    if (!link) return NULL;
    link->broker = (BrokerObject *)Py_NewRef((PyObject *)broker);
    link->owner = Py_NewRef(owner);
    link->own = &link->mine;
    link->mine.object = link;
    return link;
}

static PyObject *Broker_open(BrokerObject *self, PyObject *args) {
    PyObject *owner;
    long long now;
    if (!PyArg_ParseTuple(args, "OL:open", &owner, &now)) return NULL;
    LinkObject *link = pn_new_link(self, owner);
    if (!link) return NULL;
    now = enter(self, now);
    link->link = pn_link_open(self->house.broker, link->own, now);
    leave(self);
    if (!link->link) {
        Py_DECREF(link);
        return PyErr_NoMemory();
    }
    return (PyObject *)link;
}

/* The names of a rule: spans of the texts in `tuple`, to be freed with PyMem_Free; NULL with an exception set. */
static pn_span *names_of(PyObject *tuple) {
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    pn_span *names = PyMem_Calloc((size_t)n + 1, sizeof *names); /* nobody is a list as well */
    if (!names) return (pn_span *)PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(tuple, i);
        if (!PyUnicode_Check(name)) {
            PyErr_SetString(PyExc_TypeError, "the names of a rule are str");
        } else if (span_arg(name, &names[i])) {
            continue;
        }
        PyMem_Free(names);
        return NULL;
    }
    return names;
}

/* Appends item `i` of what set_rules was given. */
static bool add_rule(pn_rules *rules, PyObject *item, Py_ssize_t i) {
    int allow, actions, retain, qos_max = 2;
    PyObject *filter, *who = Py_None;
    pn_rule rule = {0};
    if (!PyArg_ParseTuple(item, "piiU|iO", &allow, &actions, &retain, &filter, &qos_max, &who) || !span_arg(filter, &rule.filter)) {
        return false;
    }
    pn_span *names = NULL;
    if (who != Py_None) {
        if (!PyTuple_Check(who)) {
            PyErr_SetString(PyExc_TypeError, "the names of a rule are a tuple, or None for all");
            return false;
        }
        names = names_of(who);
        if (!names) return false;
        rule.names = names;
        rule.name_count = (uint32_t)PyTuple_GET_SIZE(who);
    }
    rule.allow = allow;
    rule.actions = (uint8_t)actions;
    rule.retain = (uint8_t)retain;
    rule.qos_max = (uint8_t)qos_max;
    int failed = pn_rules_add(rules, &rule);
    PyMem_Free(names);
    if (failed == PN_QUOTA_EXCEEDED) {
        PyErr_NoMemory();
    } else if (failed) {
        PyErr_Format(PyExc_ValueError, "rule %zd: %R is not a valid topic filter", i, filter);
    }
    return !failed;
}

static PyObject *Broker_set_rules(BrokerObject *self, PyObject *args) {
    int slot;
    PyObject *sequence;
    if (!PyArg_ParseTuple(args, "iO:set_rules", &slot, &sequence)) return NULL;
    if (slot < 0 || slot >= PN_RULE_SETS) {
        return PyErr_Format(PyExc_ValueError, "a slot is from 0 to %d, not %d", PN_RULE_SETS - 1, slot);
    }
    PyObject *fast = PySequence_Fast(sequence, "rules is a sequence");
    if (!fast) return NULL;
    pn_rules *rules = pn_rules_new(pn_broker_seed(self->house.broker));
    if (!rules) PyErr_NoMemory();
    for (Py_ssize_t i = 0; rules && i < PySequence_Fast_GET_SIZE(fast); i++) {
        if (add_rule(rules, PySequence_Fast_GET_ITEM(fast, i), i)) continue;
        pn_rules_free(rules);
        rules = NULL;
    }
    Py_DECREF(fast);
    if (!rules) return NULL;
    enter(self, 0);
    pn_broker_set_rules(self->house.broker, (uint8_t)slot, rules);
    leave(self);
    Py_RETURN_NONE;
}

static PyObject *Broker_set_limits(BrokerObject *self, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args)) return PyErr_Format(PyExc_TypeError, "set_limits() takes keywords only");
    pn_limits limits;
    pn_limits_default(&limits);
    PyObject *name, *value;
    for (Py_ssize_t at = 0; kwargs && PyDict_Next(kwargs, &at, &name, &value);) {
        if (!set_limit(&limits, name, value)) return NULL;
    }
    enter(self, 0);
    pn_broker_set_limits(self->house.broker, &limits);
    leave(self);
    Py_RETURN_NONE;
}

static PyObject *Broker_revoke(BrokerObject *self, PyObject *args) {
    int slot;
    PyObject *identity;
    long long now;
    pn_span id;
    if (!PyArg_ParseTuple(args, "iUL:revoke", &slot, &identity, &now) || !span_arg(identity, &id)) return NULL;
    now = enter(self, now);
    if (slot >= 0 && slot < PN_RULE_SETS) pn_broker_revoke(self->house.broker, (uint8_t)slot, id, now);
    leave(self);
    Py_RETURN_NONE;
}

static PyObject *Broker_explain(BrokerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"slot", "identity", "action", "topic", "retain", "qos", NULL};
    int slot, action, retain = 0, rule = -1;
    unsigned char qos = 0;
    PyObject *identity, *topic;
    pn_span id, t;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iUiU|pb:explain", names, &slot, &identity, &action, &topic, &retain, &qos)) return NULL;
    if (!span_arg(identity, &id) || !span_arg(topic, &t)) return NULL;
    const pn_rules *rules = slot < 0 ? NULL : pn_broker_rules(self->house.broker, slot < PN_RULE_SETS ? (uint8_t)slot : PN_RULE_SETS);
    bool may = rules && (action == PN_MAY_PUBLISH ? pn_rules_may_publish(rules, id, t, qos, retain, &rule)
                                                  : pn_rules_may_subscribe(rules, id, t, action == PN_MAY_SHARE, &qos, &rule));
    return Py_BuildValue("(Oii)", may ? Py_True : Py_False, rule, qos);
}

static PyObject *Broker_publish(BrokerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"topic", "payload", "qos", "retain", "lifetime", "now", NULL};
    PyObject *topic;
    Py_buffer payload;
    int qos = 0, retain = 0;
    long long lifetime = -1, now = 0;
    pn_span t;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Uy*|$ipLL:publish", names, &topic, &payload, &qos, &retain, &lifetime, &now)) return NULL;
    PyObject *result = NULL;
    if (!span_arg(topic, &t)) {
        /* the error is set */
    } else if (qos < 0 || qos > 2 || (uint64_t)payload.len > PN_REMAINING_LENGTH_MAX ||
               !pn_topic_name_valid(t, PN_STRING_MAX, PN_STRING_MAX)) {
        PyErr_Format(PyExc_ValueError, "cannot publish to %R at QoS %d", topic, qos);
    } else {
        now = enter_late(self, now);
        lifetime = lifetime < 0 || lifetime > UINT32_MAX * 1000ll ? PN_NEVER : lifetime;
        if (pn_broker_publish(self->house.broker, t, pn_span_of(payload.buf, (size_t)payload.len), (uint8_t)qos, retain, lifetime, now)) {
            result = leave_with_events(self);
        } else {
            leave(self);
            PyErr_NoMemory();
        }
    }
    PyBuffer_Release(&payload);
    return result;
}

static PyObject *Broker_retained(BrokerObject *self, PyObject *topic) {
    pn_span t;
    if (!PyUnicode_Check(topic)) return PyErr_Format(PyExc_TypeError, "a topic is a str");
    if (!span_arg(topic, &t)) return NULL;
    enter(self, 0);
    const pn_message *m = pn_broker_retained(self->house.broker, t);
    PyObject *payload = m ? bytes_of(pn_message_payload(m)) : Py_NewRef(Py_None);
    leave(self);
    return payload;
}

static PyObject *Broker_dirty(BrokerObject *self, PyObject *unused) {
    (void)unused;
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    bool whole = true;
    enter(self, 0);
    for (pn_link *l; whole && (l = pn_broker_dirty(self->house.broker, 0)) != NULL;) {
        const pn_owner *owner = pn_link_owner(l);
        whole = !owner->object || PyList_Append(list, owner->object) == 0; /* who rested has no connection any more */
    }
    uint32_t due = due_loops(self);
    leave(self);
    wake_loops(self, due);
    if (!whole) Py_CLEAR(list);
    return list;
}

static PyObject *Broker_online(BrokerObject *self, PyObject *arg) {
    pn_span session;
    if (!PyUnicode_Check(arg)) return PyErr_Format(PyExc_TypeError, "online() takes a str");
    if (!span_arg(arg, &session)) return NULL;
    enter(self, 0);
    bool online = pn_broker_online(self->house.broker, session);
    leave(self);
    return PyBool_FromLong(online);
}

static PyObject *Broker_tick(BrokerObject *self, PyObject *arg) {
    int64_t now;
    if (!now_arg(arg, &now)) return NULL;
    now = enter(self, now);
    pn_broker_tick(self->house.broker, now);
    return leave_with_events(self);
}

static PyObject *Broker_work(BrokerObject *self, PyObject *arg) {
    int64_t now;
    if (!now_arg(arg, &now)) return NULL;
    now = enter(self, now);
    pn_broker_work(self->house.broker, now);
    return leave_with_events(self);
}

static PyObject *Broker_busy(BrokerObject *self, void *closure) {
    (void)closure;
    enter(self, 0);
    bool busy = pn_broker_busy(self->house.broker);
    uint32_t due = due_loops(self);
    leave(self);
    wake_loops(self, due);
    return PyBool_FromLong(busy && !due); /* a loop does a slice in each of its turns; two who did would make the others wait twice as long */
}

static PyObject *Broker_keep(BrokerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"waits", "wall", NULL};
    int waits;
    long long wall;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$pL:keep", names, &waits, &wall)) return NULL;
    enter(self, 0);
    bool keeps = pn_broker_keep(self->house.broker, waits, wall);
    leave(self);
    if (!keeps) {
        PyErr_SetString(PyExc_RuntimeError, "keep() comes before the first session");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *Broker_restore(BrokerObject *self, PyObject *args) {
    PyObject *rows;
    long long now;
    if (!PyArg_ParseTuple(args, "O!L:restore", &PyList_Type, &rows, &now)) return NULL;
    Py_ssize_t bad = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        PyObject *key = PyTuple_Check(row) && PyTuple_GET_SIZE(row) == 2 ? PyTuple_GET_ITEM(row, 0) : NULL;
        PyObject *value = key ? PyTuple_GET_ITEM(row, 1) : NULL;
        bool whole = key && PyBytes_Check(key) && PyBytes_Check(value) && PyBytes_GET_SIZE(key) <= INT32_MAX && PyBytes_GET_SIZE(value) <= INT32_MAX;
        bad += !whole || !pn_broker_restore(self->house.broker, pn_span_of(PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key)),
                                            pn_span_of(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)), now);
    }
    return PyLong_FromSsize_t(bad);
}

static PyObject *Broker_restored(BrokerObject *self, PyObject *arg) {
    int64_t now;
    if (!now_arg(arg, &now)) return NULL;
    now = enter(self, now);
    pn_broker_restored(self->house.broker, now);
    return leave_with_events(self);
}

static PyObject *Broker_journal(BrokerObject *self, PyObject *unused) {
    (void)unused;
    pn_span batch;
    enter(self, 0);
    bool some = pn_broker_batch(self->house.broker, &batch);
    PyObject *bytes = some ? bytes_of(batch) : NULL; /* first: without memory for it the batch stays where it is */
    unsigned long long number = bytes ? pn_broker_taken(self->house.broker) : 0;
    self->house.idle = !some;
    leave(self);
    if (!some) Py_RETURN_NONE;
    return bytes ? Py_BuildValue("(KN)", number, bytes) : NULL;
}

static PyObject *Broker_committed(BrokerObject *self, PyObject *args) {
    unsigned long long number;
    long long now;
    if (!PyArg_ParseTuple(args, "KL:committed", &number, &now)) return NULL;
    now = enter(self, now);
    pn_broker_committed(self->house.broker, number, now);
    return leave_with_events(self);
}

static PyObject *Broker_failing(BrokerObject *self, PyObject *args) {
    int fails;
    long long now;
    if (!PyArg_ParseTuple(args, "pL:failing", &fails, &now)) return NULL;
    now = enter(self, now);
    pn_broker_failing(self->house.broker, fails, now);
    return leave_with_events(self);
}

static PyObject *Broker_stats(BrokerObject *self, PyObject *unused) {
    (void)unused;
    PyObject *d = PyDict_New();
    if (!d) return NULL;
    enter(self, 0);
    const pn_stats now = *pn_broker_stats(self->house.broker), *stats = &now;
    leave(self);
    for (const pn_stat_row *row = pn_stat_table; row->name; row++) {
        uint64_t n = *(const uint64_t *)((const char *)stats + row->offset);
        PyObject *v = PyLong_FromUnsignedLongLong(n);
        if (!v || PyDict_SetItemString(d, row->name, v) < 0) {
            Py_XDECREF(v);
            Py_DECREF(d);
            return NULL;
        }
        Py_DECREF(v);
    }
    return d;
}

static PyMethodDef Broker_methods[] = {
    {"open", (PyCFunction)Broker_open, METH_VARARGS, "open(owner, now) -> Link. A new transport connection."},
    {"set_rules", (PyCFunction)Broker_set_rules, METH_VARARGS, "set_rules(slot, rules). Replaces a rule set; sessions are judged again."},
    {"set_limits", (PyCFunction)(void (*)(void))Broker_set_limits, METH_VARARGS | METH_KEYWORDS,
     "set_limits(**limits). Limits for what comes from now on; those not named get their defaults."},
    {"revoke", (PyCFunction)Broker_revoke, METH_VARARGS, "revoke(slot, identity, now). Drops the delayed wills of whoever is known no longer."},
    {"explain", (PyCFunction)(void (*)(void))Broker_explain, METH_VARARGS | METH_KEYWORDS,
     "explain(slot, identity, action, topic, retain=False, qos=0) -> (allowed, number of the deciding rule or -1, QoS)."},
    {"publish", (PyCFunction)(void (*)(void))Broker_publish, METH_VARARGS | METH_KEYWORDS,
     "publish(topic, payload, *, qos=0, retain=False, lifetime=-1, now) -> events. In the gateway's own name."},
    {"retained", (PyCFunction)Broker_retained, METH_O, "retained(topic) -> bytes | None."},
    {"dirty", (PyCFunction)Broker_dirty, METH_NOARGS, "dirty() -> list of the links that have new output."},
    {"online", (PyCFunction)Broker_online, METH_O, "online(session) -> bool. Whether the session is online."},
    {"tick", (PyCFunction)Broker_tick, METH_O, "tick(now) -> events. Lets time pass."},
    {"work", (PyCFunction)Broker_work, METH_O, "work(now) -> events. A slice of what takes long."},
    {"keep", (PyCFunction)(void (*)(void))Broker_keep, METH_VARARGS | METH_KEYWORDS,
     "keep(*, waits, wall). Records what must survive a crash from now on."},
    {"restore", (PyCFunction)Broker_restore, METH_VARARGS, "restore(rows, now) -> number of rows that mean nothing. In the order of the keys."},
    {"restored", (PyCFunction)Broker_restored, METH_O, "restored(now) -> events. That was all."},
    {"journal", (PyCFunction)Broker_journal, METH_NOARGS, "journal() -> (number, records) to be written next, or None."},
    {"committed", (PyCFunction)Broker_committed, METH_VARARGS, "committed(number, now) -> events. It is on the disk."},
    {"failing", (PyCFunction)Broker_failing, METH_VARARGS, "failing(fails, now) -> events. The disk keeps nothing, or does again."},
    {"stats", (PyCFunction)Broker_stats, METH_NOARGS, "stats() -> counters and gauges by name."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Broker_getset[] = {
    {"busy", (getter)Broker_busy, NULL, "Whether there is something for work() to do.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Broker_slots[] = {
    {Py_tp_doc, "All sessions, subscriptions and retained messages of one gateway; sans-IO. See broker.h."},
    {Py_tp_new, Broker_new},
    {Py_tp_dealloc, Broker_dealloc},
    {Py_tp_methods, Broker_methods},
    {Py_tp_getset, Broker_getset},
    {0, NULL},
};
static PyType_Spec Broker_spec = {"peanutd._core.Broker", sizeof(BrokerObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, Broker_slots};

/* Adds the types, the constants and LIMITS. */
static int add_broker(PyObject *module, core_state *state) {
    state->link_type = PyType_FromModuleAndSpec(module, &Link_spec, NULL);
    state->connect_type = (PyObject *)PyStructSequence_NewType(&connect_desc);
    PyObject *broker = PyType_FromModuleAndSpec(module, &Broker_spec, NULL);
    PyObject *limits = PyDict_New();
    int failed = !state->link_type || !state->connect_type || !broker || !limits;
    failed = failed || PyModule_AddObjectRef(module, "Link", state->link_type) < 0 ||
             PyModule_AddObjectRef(module, "Connect", state->connect_type) < 0 ||
             PyModule_AddObjectRef(module, "Broker", broker) < 0 || PyModule_AddObjectRef(module, "LIMITS", limits) < 0;
    for (const pn_limit_row *row = pn_limit_table; !failed && row->name; row++) {
        PyObject *v = PyLong_FromUnsignedLong(row->otherwise);
        failed = !v || PyDict_SetItemString(limits, row->name, v) < 0;
        Py_XDECREF(v);
    }
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"EVENT_CONNECT", PN_EVENT_CONNECT}, {"EVENT_DISCONNECT", PN_EVENT_DISCONNECT}, {"EVENT_CLOSED", PN_EVENT_CLOSED},
        {"EVENT_DENIED", PN_EVENT_DENIED},   {"EVENT_AUTH", PN_EVENT_AUTH}, {"EVENT_PAUSE", PN_EVENT_PAUSE}, {"EVENT_RESUME", PN_EVENT_RESUME},   {"MAY_PUBLISH", PN_MAY_PUBLISH},           {"MAY_SUBSCRIBE", PN_MAY_SUBSCRIBE},
        {"MAY_SHARE", PN_MAY_SHARE},
        {"RETAIN_ANY", PN_RETAIN_ANY},       {"RETAIN_ONLY", PN_RETAIN_ONLY},           {"RETAIN_NEVER", PN_RETAIN_NEVER},
    };
    for (size_t i = 0; !failed && i < sizeof constants / sizeof *constants; i++) {
        failed = PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0;
    }
#ifdef PN_NATIVE
    failed = failed || pn_add_native(module) < 0;
#endif
    Py_XDECREF(broker);
    Py_XDECREF(limits);
    return failed ? -1 : 0;
}

/* ==== The module ================================================================================================ */

static const char *const key_names[] = {
#define KEY_NAME(name) #name,
    KEYS(KEY_NAME)
};

/* Interns `text`, when there is one, into `*slot`. */
static int intern(PyObject **slot, const char *text) {
    if (!text) return 0;
    *slot = PyUnicode_InternFromString(text);
    return *slot ? 0 : -1;
}

static int core_exec(PyObject *module) {
    pn_mem_begin();
    core_state *st = state_of_module(module);
    for (int i = 0; i < KEY_COUNT; i++)
        if (intern(&st->keys[i], key_names[i])) return -1;
    for (uint8_t i = 0; i < PN_TYPES; i++)
        if (intern(&st->types[i], pn_type_name(i))) return -1;
    for (uint8_t i = 0; i < PN_PROPERTY_IDS; i++)
        if (intern(&st->props[i], pn_prop_name(i))) return -1;

    st->mqtt_error = PyErr_NewExceptionWithDoc("peanutd._core.MqttError",
        "Something that breaks the MQTT standard. `code` is the reason code (5.0 §2.4; used for the older versions too),\n"
        "`name` its name in snake_case, such as \"malformed_packet\".", NULL, NULL);
    st->decoder_type = PyType_FromModuleAndSpec(module, &decoder_spec, NULL);
    if (PyModule_AddObjectRef(module, "MqttError", st->mqtt_error) ||
        PyModule_AddObjectRef(module, "Decoder", st->decoder_type) ||
        PyModule_AddIntConstant(module, "PACKET_SIZE_MAX", (long)PN_PACKET_SIZE_MAX))
        return -1;
    return add_broker(module, st);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg) {
    core_state *st = state_of_module(module);
    Py_VISIT(st->mqtt_error);
    Py_VISIT(st->decoder_type);
    Py_VISIT(st->link_type);
    Py_VISIT(st->connect_type);
    return 0;
}

static int core_clear(PyObject *module) {
    core_state *st = state_of_module(module);
    Py_CLEAR(st->mqtt_error);
    Py_CLEAR(st->decoder_type);
    Py_CLEAR(st->link_type);
    Py_CLEAR(st->connect_type);
    for (size_t i = 0; i < COUNT(st->keys); i++) Py_CLEAR(st->keys[i]);
    for (size_t i = 0; i < COUNT(st->types); i++) Py_CLEAR(st->types[i]);
    for (size_t i = 0; i < COUNT(st->props); i++) Py_CLEAR(st->props[i]);
    return 0;
}

static void core_free(void *module) { (void)core_clear((PyObject *)module); }

static PyMethodDef core_methods[] = {
    {"decode", (PyCFunction)(void (*)(void))core_decode, METH_VARARGS | METH_KEYWORDS, decode_doc},
    {"encode", (PyCFunction)(void (*)(void))core_encode, METH_VARARGS | METH_KEYWORDS, encode_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef core_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "peanutd._core",
    .m_doc = "The packet path in C: the MQTT codec and the broker object.",
    .m_size = sizeof(core_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
