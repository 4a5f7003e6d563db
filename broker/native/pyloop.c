/* pyloop.c: the native loop for Python, as the classes Loop and Tls of `peanutd._core`; in native/ the only file that includes Python.h.
 *
 * The rule it keeps: it translates and decides nothing. The loop's thread never touches an object of Python: it carries the pointer to a
 * connection's object, to which one reference belongs from `add` until its POST_GONE has been read here.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "objects.h"

#include "loop.h"
#include "mem.h"
#include "tls.h"

/* ==== Tls: a context ============================================================================================ */

typedef struct {
    PyObject_HEAD
    SSL_CTX *context; /* owned */
} TlsObject;

/* The table of a list of (identity, key), as bytes; owned. NULL with an exception set. */
static pn_psks *psks_of(PyObject *list) {
    PyObject *pairs = PySequence_Fast(list, "psk must be a list of identities and keys");
    if (!pairs) return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(pairs);
    pn_psks *psks = pn_psks_new((size_t)count);
    bool good = psks != NULL;
    for (Py_ssize_t i = 0; good && i < count; i++) {
        char *identity, *key;
        Py_ssize_t identity_n, key_n;
        PyObject *pair = PySequence_Fast_GET_ITEM(pairs, i);
        if (!PyTuple_Check(pair)) PyErr_SetString(PyExc_TypeError, "psk must be a list of identities and keys");
        good = PyTuple_Check(pair) &&
               PyArg_ParseTuple(pair, "y#y#;psk must be a list of identities and keys", &identity, &identity_n, &key, &key_n) &&
               identity_n <= PN_PSK_IDENTITY_MAX && key_n <= PN_PSK_KEY_MAX &&
               pn_psks_add(psks, pn_span_of(identity, (size_t)identity_n), pn_span_of(key, (size_t)key_n));
    }
    Py_DECREF(pairs);
    if (good && pn_psks_seal(psks)) return psks;
    pn_psks_free(psks);
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "keys of devices: too many, one twice, or an identity or key of a wrong length");
    return NULL;
}

static PyObject *Tls_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"chain", "key", "authorities", "certificate", "ciphers", "groups", "tickets", "psk", NULL};
    PyObject *psk;
    const char *chain, *key, *authorities;
    Py_ssize_t chain_n, key_n, authorities_n;
    pn_tls_files files = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$y#y#y#isslO:Tls", names, &chain, &chain_n, &key, &key_n, &authorities,
                                     &authorities_n, &files.certificate, &files.ciphers, &files.groups, &files.tickets, &psk))
        return NULL;
    files.chain = pn_span_of(chain, (size_t)chain_n);
    files.key = pn_span_of(key, (size_t)key_n);
    files.authorities = pn_span_of(authorities, (size_t)authorities_n);
    if (psk != Py_None && (files.keys = psks_of(psk)) == NULL) return NULL;
    char why[160];
    SSL_CTX *context = pn_tls_context(&files, why, sizeof why);
    if (!context) {
        pn_psks_free(files.keys);
        return PyErr_Format(PyExc_ValueError, "%s", why);
    }
    TlsObject *self = (TlsObject *)type->tp_alloc(type, 0);
    if (!self) {
        SSL_CTX_free(context);
        return NULL;
    }
    self->context = context;
    return (PyObject *)self;
}

static void Tls_dealloc(TlsObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    SSL_CTX_free(self->context);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *Tls_staple(TlsObject *self, PyObject *args) {
    const char *answer;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "y#:staple", &answer, &n)) return NULL;
    if (!pn_tls_staple(self->context, pn_span_of(answer, (size_t)n))) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *Tls_rotate(TlsObject *self, PyObject *unused) {
    (void)unused;
    if (!pn_tls_rotate(self->context)) return PyErr_Format(PyExc_OSError, "no random numbers");
    Py_RETURN_NONE;
}

static PyMethodDef Tls_methods[] = {
    {"rotate", (PyCFunction)Tls_rotate, METH_NOARGS, "rotate(). Another key for tickets; those of the one before are good still."},
    {"staple", (PyCFunction)Tls_staple, METH_VARARGS, "staple(answer). The OCSP response for clients that ask; b\"\": none."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Tls_slots[] = {
    {Py_tp_doc, "Tls(*, chain, key, authorities, certificate, ciphers, groups, tickets, psk). What handshakes of the native loop go by. PEM as bytes;\n"
                "certificate: TLS_NONE, TLS_OPTIONAL or TLS_REQUIRED; tickets: seconds that a session can be resumed for; psk: None, or a list of\n"
                "(identity, key) in place of all certificates. ValueError says what is not usable."},
    {Py_tp_new, Tls_new},
    {Py_tp_dealloc, Tls_dealloc},
    {Py_tp_methods, Tls_methods},
    {0, NULL},
};
static PyType_Spec Tls_spec = {"peanutd._core.Tls", sizeof(TlsObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, Tls_slots};

/* ==== Loop ====================================================================================================== */

typedef struct {
    PyObject_HEAD
    pn_loop *loop;        /* owned; NULL once it has ended */
    BrokerObject *broker; /* strong */
} LoopObject;


static void give_back(void *object) { Py_DECREF((PyObject *)object); }

static PyObject *ended(void) {
    PyErr_SetString(PyExc_RuntimeError, "the loop has ended");
    return NULL;
}

static pn_loop_times times_of(double stall, double linger) {
    return (pn_loop_times){.stall = (int64_t)(stall * 1000), .linger = (int64_t)(linger * 1000)};
}

static PyObject *Loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"broker", "stall", "linger", "threads", NULL};
    PyObject *broker;
    double stall = 0, linger = 0;
    unsigned threads = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$ddI:Loop", names, &broker, &stall, &linger, &threads)) return NULL;
    PyObject *core = PyType_GetModule(type);
    PyObject *broker_type = core ? PyObject_GetAttrString(core, "Broker") : NULL;
    if (!broker_type) return NULL;
    int fits = PyObject_TypeCheck(broker, (PyTypeObject *)broker_type);
    Py_DECREF(broker_type);
    if (!fits) return PyErr_Format(PyExc_TypeError, "Loop() takes a Broker");
    pn_house *house = &((BrokerObject *)broker)->house;
    if (house->loop) return PyErr_Format(PyExc_RuntimeError, "this broker has a loop");
    LoopObject *self = (LoopObject *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    pn_loop_times times = times_of(stall, linger);
    self->loop = house->loop = pn_loop_new(house, &times);
    if (!self->loop) {
        Py_DECREF(self);
        return PyErr_Format(PyExc_OSError, "no memory or no file descriptors for the native loop");
    }
    if (threads) pn_loop_help(self->loop, threads); /* without any the loop does it */
    self->broker = (BrokerObject *)Py_NewRef(broker);
    return (PyObject *)self;
}

/* Ends the thread, closes every connection, gives every object back. */
static void end(LoopObject *self) {
    pn_loop *loop = self->loop;
    if (!loop) return;
    self->loop = NULL;
    Py_BEGIN_ALLOW_THREADS /* its last turn may take milliseconds, and it never asks for anything of ours */
    pn_loop_stop(loop);
    Py_END_ALLOW_THREADS
    pn_loop_free(loop, give_back);
    self->broker->house.loop = NULL;
}

static void Loop_dealloc(LoopObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    end(self);
    Py_XDECREF(self->broker);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *Loop_start(LoopObject *self, PyObject *unused) {
    (void)unused;
    if (!self->loop) return ended();
    if (!pn_loop_start(self->loop)) return PyErr_Format(PyExc_OSError, "no thread for the native loop");
    Py_RETURN_NONE;
}

static PyObject *Loop_end(LoopObject *self, PyObject *unused) {
    (void)unused;
    end(self);
    Py_RETURN_NONE;
}

static PyObject *Loop_turn(LoopObject *self, PyObject *arg) {
    long timeout = PyLong_AsLong(arg);
    if (timeout == -1 && PyErr_Occurred()) return NULL;
    if (!self->loop) return ended();
    Py_BEGIN_ALLOW_THREADS
    pn_loop_turn(self->loop, (int)timeout);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *Loop_fileno(LoopObject *self, PyObject *unused) {
    (void)unused;
    return self->loop ? PyLong_FromLong(pn_loop_bell(self->loop)) : ended();
}

static PyObject *Loop_set_times(LoopObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"stall", "linger", NULL};
    double stall, linger;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$dd:set_times", names, &stall, &linger)) return NULL;
    if (!self->loop) return ended();
    pn_loop_times times = times_of(stall, linger);
    pn_loop_set_times(self->loop, &times);
    Py_RETURN_NONE;
}

/* The pn_link of a Link that is not lost; NULL with ValueError. */
static pn_link *link_of(PyObject *object) {
    pn_link *link = ((LinkObject *)object)->link;
    if (!link) PyErr_SetString(PyExc_ValueError, "the link is lost");
    return link;
}

static PyObject *Loop_add(LoopObject *self, PyObject *args) {
    int fd;
    PyObject *object, *link = Py_None;
    if (!PyArg_ParseTuple(args, "iO|O:add", &fd, &object, &link)) return NULL;
    if (!self->loop) return ended();
    pn_link *of = NULL;
    if (link != Py_None && (of = link_of(link)) == NULL) return NULL;
    uint64_t name = pn_loop_add(self->loop, fd, Py_NewRef(object), of);
    if (name) return PyLong_FromUnsignedLongLong(name);
    Py_DECREF(object);
    return PyErr_NoMemory();
}

static PyObject *Loop_welcome(LoopObject *self, PyObject *args) {
    int fd;
    PyObject *object, *tls;
    if (!PyArg_ParseTuple(args, "iOO:welcome", &fd, &object, &tls)) return NULL;
    if (!self->loop) return ended();
    LinkObject *link = pn_new_link(self->broker, object);
    if (!link) return NULL;
    SSL_CTX *context = tls == Py_None ? NULL : ((TlsObject *)tls)->context;
    if (context) SSL_CTX_up_ref(context);
    uint64_t name = pn_loop_welcome(self->loop, fd, Py_NewRef(object), context, &link->own);
    if (name) return Py_BuildValue("(KN)", (unsigned long long)name, link);
    SSL_CTX_free(context);
    Py_DECREF(object);
    Py_DECREF(link);
    return PyErr_NoMemory();
}

/* Orders that are a name and nothing else. */
static PyObject *give_order(LoopObject *self, PyObject *arg, uint8_t kind, void *thing) {
    unsigned long long name = PyLong_AsUnsignedLongLong(arg);
    if (name == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    if (self->loop && !pn_loop_order(self->loop, kind, name, thing)) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *Loop_more(LoopObject *self, PyObject *arg) { return give_order(self, arg, PN_ORDER_MORE, NULL); }
static PyObject *Loop_hold(LoopObject *self, PyObject *arg) { return give_order(self, arg, PN_ORDER_READ, NULL); }
static PyObject *Loop_seen(LoopObject *self, PyObject *arg) { return give_order(self, arg, PN_ORDER_READ, self); }
static PyObject *Loop_finish(LoopObject *self, PyObject *arg) { return give_order(self, arg, PN_ORDER_FINISH, NULL); }
static PyObject *Loop_abort(LoopObject *self, PyObject *arg) { return give_order(self, arg, PN_ORDER_ABORT, NULL); }

static PyObject *Loop_begin(LoopObject *self, PyObject *args) {
    unsigned long long name;
    PyObject *tls;
    if (!PyArg_ParseTuple(args, "KO:begin", &name, &tls)) return NULL;
    if (!self->loop) Py_RETURN_NONE;
    SSL_CTX *context = ((TlsObject *)tls)->context;
    SSL_CTX_up_ref(context);
    if (pn_loop_order(self->loop, PN_ORDER_BEGIN, name, context)) Py_RETURN_NONE;
    SSL_CTX_free(context);
    return PyErr_NoMemory();
}

static PyObject *Loop_attach(LoopObject *self, PyObject *args) {
    unsigned long long name;
    PyObject *link;
    if (!PyArg_ParseTuple(args, "KO:attach", &name, &link)) return NULL;
    pn_link *of = link_of(link);
    if (!of) return NULL;
    if (self->loop && !pn_loop_order(self->loop, PN_ORDER_ATTACH, name, of)) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* The text of a post: a certificate and the first bytes are bytes. */
static PyObject *text_of(const pn_post *p) {
    bool raw = p->kind == PN_POST_HELLO || p->kind == PN_POST_READY || p->kind == PN_POST_OPENED;
    return raw ? PyBytes_FromStringAndSize(p->text, p->n) : PyUnicode_DecodeUTF8(p->text ? p->text : "", p->n, "replace");
}

static PyObject *Loop_posts(LoopObject *self, PyObject *unused) {
    (void)unused;
    if (!self->loop) return PyList_New(0);
    uint32_t count;
    pn_post *posts = pn_loop_posts(self->loop, &count);
    /* First of all: what follows may run the collector, and with it the end of a link. */
    for (uint32_t i = 0; i < count; i++) {
        if (posts[i].kind != PN_POST_GONE) Py_XINCREF((PyObject *)posts[i].object);
        if (posts[i].link) ((LinkObject *)((pn_owner *)pn_link_owner(posts[i].link))->object)->link = posts[i].link;
    }
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; i < count; i++) {
        pn_post *p = &posts[i];
        PyObject *object = p->object;
        if (list && (object || p->kind == PN_POST_JOURNAL)) {
            PyObject *one = Py_BuildValue("(iOiN)", p->kind, object ? object : Py_None, p->reason, text_of(p));
            if (!one || PyList_Append(list, one) < 0) Py_CLEAR(list);
            Py_XDECREF(one);
        }
        Py_XDECREF(object);
        pn_free(p->text);
    }
    pn_free(posts);
    return list;
}

static PyObject *Loop_counts(LoopObject *self, PyObject *unused) {
    (void)unused;
    if (!self->loop) return ended();
    pn_loop_counts c = pn_loop_count(self->loop);
    return Py_BuildValue("{s:K,s:K,s:K,s:K}", "connections", c.connections, "turns", c.turns, "receives", c.receives, "sends", c.sends);
}

static PyMethodDef Loop_methods[] = {
    {"start", (PyCFunction)Loop_start, METH_NOARGS, "start(). Turns in a thread of its own, until end()."},
    {"end", (PyCFunction)Loop_end, METH_NOARGS, "end(). Ends the thread and closes every connection."},
    {"turn", (PyCFunction)Loop_turn, METH_O, "turn(timeout). One turn, without a thread; waits that many milliseconds at the most, -1 for ever."},
    {"fileno", (PyCFunction)Loop_fileno, METH_NOARGS, "fileno(). Is readable while there are posts."},
    {"posts", (PyCFunction)Loop_posts, METH_NOARGS, "posts() -> [(kind, connection's object or Link, reason, text)], in order."},
    {"set_times", (PyCFunction)(void (*)(void))Loop_set_times, METH_VARARGS | METH_KEYWORDS, "set_times(*, stall, linger). Seconds."},
    {"add", (PyCFunction)Loop_add, METH_VARARGS, "add(fd, object, link=None) -> name. The socket is the loop's from now on. link: plain MQTT."},
    {"welcome", (PyCFunction)Loop_welcome, METH_VARARGS,
     "welcome(fd, object, tls) -> (name, Link). The same for TLS. tls: the handshake may begin with the first bytes; None: begin() says so.\n"
     "The Link is nobody's until POST_OPENED, or it is attached."},
    {"begin", (PyCFunction)Loop_begin, METH_VARARGS, "begin(name, tls). The handshake."},
    {"more", (PyCFunction)Loop_more, METH_O, "more(name). The first bytes are not enough."},
    {"attach", (PyCFunction)Loop_attach, METH_VARARGS, "attach(name, link). After the handshake."},
    {"hold", (PyCFunction)Loop_hold, METH_O, "hold(name). EVENT_PAUSE or EVENT_RESUME has come for it: it reads no more for now, or again."},
    {"seen", (PyCFunction)Loop_seen, METH_O, "seen(name). Its CONNECT or AUTH has been: it reads again."},
    {"finish", (PyCFunction)Loop_finish, METH_O, "finish(name). Sends what there is, says goodbye, waits for the peer to close."},
    {"abort", (PyCFunction)Loop_abort, METH_O, "abort(name). Closes it at once."},
    {"counts", (PyCFunction)Loop_counts, METH_NOARGS, "counts() -> connections of now; turns, receives and sends so far."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Loop_slots[] = {
    {Py_tp_doc, "Loop(broker, *, stall=0, linger=0, threads=0). The native driver: sockets and TLS in a thread of its own, handshakes in\n"
                "so many others. See native/loop.h."},
    {Py_tp_new, Loop_new},
    {Py_tp_dealloc, Loop_dealloc},
    {Py_tp_methods, Loop_methods},
    {0, NULL},
};
static PyType_Spec Loop_spec = {"peanutd._core.Loop", sizeof(LoopObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, Loop_slots};

int pn_add_native(PyObject *module) {
    PyObject *loop = PyType_FromModuleAndSpec(module, &Loop_spec, NULL), *tls = PyType_FromModuleAndSpec(module, &Tls_spec, NULL);
    int failed = !loop || !tls || PyModule_AddObjectRef(module, "Loop", loop) < 0 || PyModule_AddObjectRef(module, "Tls", tls) < 0 ||
                 PyModule_AddStringConstant(module, "OPENSSL", pn_tls_library()) < 0;
    Py_XDECREF(loop);
    Py_XDECREF(tls);
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"POST_HELLO", PN_POST_HELLO},     {"POST_READY", PN_POST_READY},     {"POST_OPENED", PN_POST_OPENED}, {"POST_FAILED", PN_POST_FAILED},
        {"POST_LOST", PN_POST_LOST},       {"POST_STALLED", PN_POST_STALLED}, {"POST_PESTERS", PN_POST_PESTERS},
        {"POST_GONE", PN_POST_GONE},       {"POST_PUMP", PN_POST_PUMP},       {"POST_JOURNAL", PN_POST_JOURNAL},
        {"TLS_NONE", PN_TLS_NONE},         {"TLS_OPTIONAL", PN_TLS_OPTIONAL}, {"TLS_REQUIRED", PN_TLS_REQUIRED},
    };
    for (size_t i = 0; !failed && i < sizeof constants / sizeof *constants; i++) {
        failed = PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0;
    }
    return failed ? -1 : 0;
}
