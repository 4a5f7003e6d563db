/* pyloop.c: the native loop for Python, as the classes Loop and Tls of `peanutd._core`.
 *
 * The rule it keeps: it translates and decides nothing. The loop's thread never touches an object of Python: it carries the pointer to a
 * connection's guest (guest.h), to which one reference belongs from `add` until its POST_GONE has been read here. With pyguest.c it is the only file in
 * native/ that includes Python.h.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

#include "loops.h"
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

/* ==== Accepting ================================================================================================= */

/* The address and port of a peer, as Python has them of a socket; false: what cannot be said. */
static bool peer_of(const struct sockaddr_storage *from, socklen_t size, char *host, size_t room, unsigned *port) {
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        *port = ntohs(in->sin_port);
        return inet_ntop(AF_INET, &in->sin_addr, host, (socklen_t)room) != NULL;
    }
    if (from->ss_family != AF_INET6) return false;
    *port = ntohs(((const struct sockaddr_in6 *)from)->sin6_port);
    return getnameinfo((const struct sockaddr *)from, size, host, (socklen_t)room, NULL, 0, NI_NUMERICHOST) == 0; /* with its scope */
}

static PyObject *core_accept(PyObject *module, PyObject *arg) {
    (void)module;
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
    unsigned port;
    int listening = PyObject_AsFileDescriptor(arg);
    if (listening < 0) return NULL;
    int fd = accept4(listening, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return PyErr_SetFromErrno(PyExc_OSError);
    if (peer_of(&from, size, host, sizeof host, &port)) return Py_BuildValue("(isI)", fd, host, port);
    close(fd);
    return PyErr_Format(PyExc_OSError, "a peer without an address");
}

static PyMethodDef functions[] = {
    {"accept", core_accept, METH_O,
     "accept(socket) -> (fd, host, port) of somebody who has come to a TCP socket that listens; does not block, and OSError as a socket's."},
    {NULL, NULL, 0, NULL},
};

/* ==== Loop ====================================================================================================== */

typedef struct {
    PyObject_HEAD
    pn_loops *loops;      /* owned; NULL once it has ended */
    BrokerObject *broker; /* strong */
} LoopObject;


static void give_back(void *guest) { Py_XDECREF(pn_guest_gone(guest)); }

static PyObject *ended(void) {
    PyErr_SetString(PyExc_RuntimeError, "the loop has ended");
    return NULL;
}

static pn_loop_times times_of(double stall, double linger) {
    return (pn_loop_times){.stall = (int64_t)(stall * 1000), .linger = (int64_t)(linger * 1000)};
}

static PyObject *Loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"broker", "stall", "linger", "threads", "loops", "wake", NULL};
    PyObject *broker, *wake = NULL;
    double stall = 0, linger = 0;
    unsigned threads = 0, loops = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$ddIIO:Loop", names, &broker, &stall, &linger, &threads, &loops, &wake)) return NULL;
    if (loops < 1 || loops > PN_LOOPS_MAX) return PyErr_Format(PyExc_ValueError, "1 to %u loops", PN_LOOPS_MAX);
    PyObject *core = PyType_GetModule(type);
    PyObject *broker_type = core ? PyObject_GetAttrString(core, "Broker") : NULL;
    if (!broker_type) return NULL;
    int fits = PyObject_TypeCheck(broker, (PyTypeObject *)broker_type);
    Py_DECREF(broker_type);
    if (!fits) return PyErr_Format(PyExc_TypeError, "Loop() takes a Broker");
    pn_house *house = &((BrokerObject *)broker)->house;
    if (house->loops) return PyErr_Format(PyExc_RuntimeError, "this broker has a loop");
    LoopObject *self = (LoopObject *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    pn_loop_times times = times_of(stall, linger);
    self->loops = house->loops = pn_loops_new(house, &times, loops);
    if (!self->loops) {
        Py_DECREF(self);
        return PyErr_Format(PyExc_OSError, "no memory or no file descriptors for the native loop");
    }
    if (threads) pn_loops_help(self->loops, threads); /* without any the loop does it */
    self->broker = (BrokerObject *)Py_NewRef(broker);
    self->broker->wake = Py_XNewRef(wake);
    return (PyObject *)self;
}

/* Ends the thread, closes every connection, gives every object back. */
static void end(LoopObject *self) {
    pn_loops *loops = self->loops;
    if (!loops) return;
    self->loops = NULL;
    Py_BEGIN_ALLOW_THREADS /* its last turn may take milliseconds, and it never asks for anything of ours */
    pn_loops_stop(loops);
    Py_END_ALLOW_THREADS
    pn_loops_free(loops, give_back);
    self->broker->house.loops = NULL;
    Py_CLEAR(self->broker->wake);
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
    if (!self->loops) return ended();
    if (!pn_loops_start(self->loops)) return PyErr_Format(PyExc_OSError, "no thread for the native loop");
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
    if (!self->loops) return ended();
    Py_BEGIN_ALLOW_THREADS
    pn_loops_turn(self->loops, (int)timeout);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *Loop_fileno(LoopObject *self, PyObject *unused) {
    (void)unused;
    return self->loops ? PyLong_FromLong(pn_loops_bell(self->loops)) : ended();
}

static PyObject *Loop_set_times(LoopObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"stall", "linger", NULL};
    double stall, linger;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$dd:set_times", names, &stall, &linger)) return NULL;
    if (!self->loops) return ended();
    pn_loop_times times = times_of(stall, linger);
    pn_loops_set_times(self->loops, &times);
    Py_RETURN_NONE;
}

/* A guest and its Link, which is nobody's yet. NULL with an exception set. */
static LinkObject *expect(LoopObject *self, PyObject *object) {
    if (!self->loops) return (LinkObject *)ended();
    pn_guest *guest = pn_guest_new(self->broker, object);
    LinkObject *link = guest ? pn_guest_link(guest) : NULL;
    if (guest && !link) pn_guest_let_go(&guest->own);
    return link;
}

/* What `expect` has begun: the name and the Link for Python, or, without a name, the end of both. */
static PyObject *expected(LinkObject *link, uint64_t name) {
    if (name) return Py_BuildValue("(KN)", (unsigned long long)name, link);
    pn_guest_let_go(&link->guest->own); /* the loop has not taken its reference */
    Py_DECREF(link);
    return PyErr_NoMemory();
}

static bool open_link(LinkObject *link, long long now) {
    now = pn_house_enter(&link->broker->house, now);
    link->link = pn_link_open(link->broker->house.broker, link->own, now);
    pn_house_leave(&link->broker->house);
    return link->link != NULL;
}

static PyObject *Loop_add(LoopObject *self, PyObject *args) {
    int fd;
    PyObject *object;
    long long now;
    if (!PyArg_ParseTuple(args, "iOL:add", &fd, &object, &now)) return NULL;
    LinkObject *link = expect(self, object);
    if (!link) return NULL;
    return expected(link, open_link(link, now) ? pn_loops_add(self->loops, fd, link->guest, link->link) : 0);
}

static PyObject *Loop_welcome(LoopObject *self, PyObject *args) {
    int fd;
    PyObject *object, *tls;
    if (!PyArg_ParseTuple(args, "iOO:welcome", &fd, &object, &tls)) return NULL;
    LinkObject *link = expect(self, object);
    if (!link) return NULL;
    SSL_CTX *context = tls == Py_None ? NULL : ((TlsObject *)tls)->context;
    if (context) SSL_CTX_up_ref(context);
    uint64_t name = pn_loops_welcome(self->loops, fd, link->guest, context, link->own);
    if (!name) SSL_CTX_free(context);
    return expected(link, name);
}

/* Orders that are a name and nothing else. */
static PyObject *give_order(LoopObject *self, PyObject *arg, uint8_t kind, void *thing) {
    unsigned long long name = PyLong_AsUnsignedLongLong(arg);
    if (name == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    if (self->loops && !pn_loops_order(self->loops, kind, name, thing)) return PyErr_NoMemory();
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
    if (!self->loops) Py_RETURN_NONE;
    SSL_CTX *context = ((TlsObject *)tls)->context;
    SSL_CTX_up_ref(context);
    if (pn_loops_order(self->loops, PN_ORDER_BEGIN, name, context)) Py_RETURN_NONE;
    SSL_CTX_free(context);
    return PyErr_NoMemory();
}

static PyObject *Loop_attach(LoopObject *self, PyObject *args) {
    unsigned long long name;
    LinkObject *link;
    long long now;
    if (!PyArg_ParseTuple(args, "KOL:attach", &name, &link, &now)) return NULL;
    if (!link->guest || link->link) return PyErr_Format(PyExc_ValueError, "the link is not one that waits to be opened");
    if (!open_link(link, now)) return PyErr_NoMemory();
    if (self->loops && !pn_loops_order(self->loops, PN_ORDER_ATTACH, name, link->link)) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* The text of a post: a certificate and the first bytes are bytes. */
static PyObject *text_of(const pn_post *p) {
    bool raw = p->kind == PN_POST_HELLO || p->kind == PN_POST_READY || p->kind == PN_POST_OPENED;
    return raw ? PyBytes_FromStringAndSize(p->text, p->n) : PyUnicode_DecodeUTF8(p->text ? p->text : "", p->n, "replace");
}

/* Takes hold of what a post is about. Of one that rests, and at its end, that is the guest, as `owner`; else the object of Python, as `object`. */
static void take_hold(pn_post *p) {
    if (p->owner) { /* of a link */
        Py_XINCREF((PyObject *)p->object);
        if (p->object) p->owner = NULL;
    } else if (p->object) {
        pn_guest *guest = p->object;
        p->owner = &guest->own;
        p->object = guest->rests ? NULL : Py_NewRef(guest->connection);
    }
    if (p->owner) pn_guest_hold(p->owner);
}

/* Lets go of a guest. What the post is about, a reference; NULL: nobody has any use for it. */
static PyObject *whom(const pn_post *p) {
    PyObject *object = p->object;
    if (!p->owner) return object;
    pn_guest *guest = (pn_guest *)p->owner;
    if (!object && p->kind != PN_POST_PUMP) {
        PyObject *link = (PyObject *)pn_guest_wake(p->owner);
        if (!link) PyErr_WriteUnraisable(NULL);
        else object = Py_NewRef(p->kind < PN_POST_HELLO ? link : guest->connection);
        Py_XDECREF(link);
    }
    if (p->kind == PN_POST_GONE) Py_XDECREF(pn_guest_gone(guest));
    pn_guest_let_go(p->owner);
    return object;
}

static PyObject *Loop_posts(LoopObject *self, PyObject *unused) {
    (void)unused;
    if (!self->loops) return PyList_New(0);
    uint32_t count;
    pn_post *posts = pn_loops_posts(self->loops, &count);
    /* First of all: what follows may run the collector, and with it the end of a link. */
    for (uint32_t i = 0; i < count; i++) {
        if (posts[i].link) ((LinkObject *)((pn_owner *)pn_link_owner(posts[i].link))->object)->link = posts[i].link;
        take_hold(&posts[i]);
    }
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; i < count; i++) {
        pn_post *p = &posts[i];
        PyObject *object = whom(p);
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

static PyObject *Loop_rest(LoopObject *self, PyObject *args) {
    LinkObject *link;
    const char *note;
    Py_ssize_t n;
    PyObject *kept;
    if (!PyArg_ParseTuple(args, "Oy#O:rest", &link, &note, &n, &kept)) return NULL;
    if (!self->loops) return ended();
    if (pn_guest_rest(link, note, n, kept == Py_None ? NULL : kept) < 0) return NULL;
    Py_RETURN_NONE;
}

/* The guests that rest, held, in an array of PyMem; NULL with an exception set. */
static pn_guest **those_at_rest(LoopObject *self, uint32_t *count) {
    const pn_guests *guests = &self->broker->guests;
    pn_guest **those = PyMem_Calloc(guests->count + 1u, sizeof *those);
    if (!those) return (pn_guest **)PyErr_NoMemory();
    *count = guests->count;
    for (uint32_t i = 0; i < *count; i++) {
        those[i] = guests->all[i];
        pn_guest_hold(&those[i]->own);
    }
    return those;
}

/* Whether one that may rest does so, and `picks` picks it; -1 with an exception set. */
static int picked(const pn_guest *g, PyObject *picks) {
    if (!g->rests || picks == Py_None) return g->rests;
    PyObject *kept = Py_NewRef(pn_guest_kept(g) ? pn_guest_kept(g) : Py_None);
    PyObject *answer = PyObject_CallOneArg(picks, kept);
    int yes = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    Py_DECREF(kept);
    return yes > 0 ? g->rests : yes;
}

static PyObject *Loop_wake(LoopObject *self, PyObject *args) {
    PyObject *picks = Py_None;
    uint32_t count = 0;
    if (!PyArg_ParseTuple(args, "|O:wake", &picks)) return NULL;
    PyObject *list = PyList_New(0);
    pn_guest **those = list ? those_at_rest(self, &count) : NULL;
    for (uint32_t i = 0; those && i < count; i++) {
        pn_guest *g = those[i];
        int wanted = list ? picked(g, picks) : 0;
        PyObject *link = wanted > 0 ? (PyObject *)pn_guest_wake(&g->own) : NULL;
        if (wanted > 0 && !link) PyErr_WriteUnraisable(NULL); /* it is cut, and the others are woken all the same */
        if (wanted < 0 || (link && PyList_Append(list, g->connection) < 0)) Py_CLEAR(list);
        Py_XDECREF(link);
        pn_guest_let_go(&g->own);
    }
    if (!those) Py_CLEAR(list);
    PyMem_Free(those);
    return list;
}

static PyObject *Loop_kept(LoopObject *self, PyObject *unused) {
    (void)unused;
    const pn_guests *guests = &self->broker->guests;
    PyObject *list = PyList_New(0); /* whatever runs meanwhile, the collector say: it is read anew for each */
    for (uint32_t i = 0; list && i < guests->count; i++) {
        PyObject *kept = pn_guest_kept(guests->all[i]);
        if (kept && PyList_Append(list, kept) < 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject *Loop_resting(LoopObject *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(self->broker ? self->broker->guests.count : 0);
}

static PyGetSetDef Loop_getset[] = {
    {"resting", (getter)Loop_resting, NULL, "How many rest.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *counts_of(pn_loop_counts c) {
    return Py_BuildValue("{s:K,s:K,s:K,s:K}", "connections", c.connections, "turns", c.turns, "receives", c.receives, "sends", c.sends);
}

static PyObject *Loop_counts(LoopObject *self, PyObject *unused) {
    (void)unused;
    return self->loops ? counts_of(pn_loops_count(self->loops)) : ended();
}

static PyObject *Loop_each(LoopObject *self, PyObject *unused) {
    (void)unused;
    if (!self->loops) return ended();
    PyObject *list = PyList_New(0);
    for (unsigned i = 0; list && i < self->loops->count; i++) {
        PyObject *one = counts_of(pn_loops_count_of(self->loops, i));
        if (!one || PyList_Append(list, one) < 0) Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list;
}

static PyMethodDef Loop_methods[] = {
    {"start", (PyCFunction)Loop_start, METH_NOARGS, "start(). Turns in a thread of its own, until end()."},
    {"end", (PyCFunction)Loop_end, METH_NOARGS, "end(). Ends the thread and closes every connection."},
    {"turn", (PyCFunction)Loop_turn, METH_O, "turn(timeout). One turn, without a thread; waits that many milliseconds at the most, -1 for ever."},
    {"fileno", (PyCFunction)Loop_fileno, METH_NOARGS, "fileno(). Is readable while there are posts."},
    {"posts", (PyCFunction)Loop_posts, METH_NOARGS, "posts() -> [(kind, connection's object or Link, reason, text)], in order."},
    {"set_times", (PyCFunction)(void (*)(void))Loop_set_times, METH_VARARGS | METH_KEYWORDS, "set_times(*, stall, linger). Seconds."},
    {"add", (PyCFunction)Loop_add, METH_VARARGS, "add(fd, object, now) -> (name, Link). Plain MQTT on a socket that is the loop's from now on."},
    {"welcome", (PyCFunction)Loop_welcome, METH_VARARGS,
     "welcome(fd, object, tls) -> (name, Link). The same for TLS. tls: the handshake may begin with the first bytes; None: begin() says so.\n"
     "The Link is nobody's until POST_OPENED, or it is attached."},
    {"begin", (PyCFunction)Loop_begin, METH_VARARGS, "begin(name, tls). The handshake."},
    {"more", (PyCFunction)Loop_more, METH_O, "more(name). The first bytes are not enough."},
    {"attach", (PyCFunction)Loop_attach, METH_VARARGS, "attach(name, link, now). After the handshake: the Link of welcome() is open."},
    {"rest", (PyCFunction)Loop_rest, METH_VARARGS,
     "rest(link, note, kept). Link and connection's object have had their day, until something is to be decided: then the `wake` of Loop() makes\n"
     "others of name, Link, note and what was kept (None: nothing)."},
    {"wake", (PyCFunction)Loop_wake, METH_VARARGS, "wake(picks=None) -> the objects of those that rested, or those alone whose `kept` picks picks."},
    {"kept", (PyCFunction)Loop_kept, METH_NOARGS, "kept() -> what was kept of each that rests, where it was something."},
    {"hold", (PyCFunction)Loop_hold, METH_O, "hold(name). EVENT_PAUSE or EVENT_RESUME has come for it: it reads no more for now, or again."},
    {"seen", (PyCFunction)Loop_seen, METH_O, "seen(name). Its CONNECT or AUTH has been: it reads again."},
    {"finish", (PyCFunction)Loop_finish, METH_O, "finish(name). Sends what there is, says goodbye, waits for the peer to close."},
    {"abort", (PyCFunction)Loop_abort, METH_O, "abort(name). Closes it at once."},
    {"counts", (PyCFunction)Loop_counts, METH_NOARGS, "counts() -> connections of now; turns, receives and sends so far."},
    {"each", (PyCFunction)Loop_each, METH_NOARGS, "each() -> the same of each loop, in a list."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Loop_slots[] = {
    {Py_tp_doc, "Loop(broker, *, stall=0, linger=0, threads=0, loops=1, wake=None). The native driver: sockets and TLS in so many loops, each a\n"
                "thread of its own, handshakes in so many others. wake(name, Link, note, kept) -> connection's object, of one that rested. See\n"
                "native/loop.h, native/loops.h and native/guest.h."},
    {Py_tp_new, Loop_new},
    {Py_tp_dealloc, Loop_dealloc},
    {Py_tp_methods, Loop_methods},
    {Py_tp_getset, Loop_getset},
    {0, NULL},
};
static PyType_Spec Loop_spec = {"peanutd._core.Loop", sizeof(LoopObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, Loop_slots};

int pn_add_native(PyObject *module) {
    PyObject *loop = PyType_FromModuleAndSpec(module, &Loop_spec, NULL), *tls = PyType_FromModuleAndSpec(module, &Tls_spec, NULL);
    int failed = !loop || !tls || PyModule_AddFunctions(module, functions) < 0 || PyModule_AddObjectRef(module, "Loop", loop) < 0 || PyModule_AddObjectRef(module, "Tls", tls) < 0 ||
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
        {"LOOPS_MAX", PN_LOOPS_MAX},       {"TLS_NONE", PN_TLS_NONE},         {"TLS_OPTIONAL", PN_TLS_OPTIONAL}, {"TLS_REQUIRED", PN_TLS_REQUIRED},
    };
    for (size_t i = 0; !failed && i < sizeof constants / sizeof *constants; i++) {
        failed = PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0;
    }
    return failed ? -1 : 0;
}
