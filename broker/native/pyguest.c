/* pyguest.c: the work of guest.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "guest.h"

#include "loops.h"
#include "mem.h"

struct pn_rest {
    pn_link *link;
    PyObject *kept; /* strong; may be NULL */
    uint16_t n;
    char note[];
};

pn_guest *pn_guest_new(BrokerObject *broker, PyObject *connection) {
    pn_guest *g = pn_calloc(1, sizeof *g);
    if (!g) return (pn_guest *)PyErr_NoMemory();
    g->broker = broker;
    g->connection = Py_NewRef(connection);
    g->refs = 1;
    return g;
}

LinkObject *pn_guest_link(pn_guest *g) {
    LinkObject *link = pn_new_link(g->broker, g->rests ? Py_None : g->connection);
    if (!link) return NULL;
    link->guest = g;
    link->own = &g->own;
    g->own.object = link;
    g->refs++;
    return link;
}

/* The Link is not its any more. */
static void part(LinkObject *link) {
    pn_guest *g = link->guest;
    link->guest = NULL;
    link->own = &link->mine;
    if (g->own.object == link) g->own.object = NULL;
}

void pn_guest_unlink(LinkObject *link) {
    pn_guest *g = link->guest;
    part(link);
    pn_guest_let_go(&g->own);
}

void pn_guest_hold(pn_owner *owner) { ((pn_guest *)owner)->refs++; }

/* --- those that rest --- */

static bool add(pn_guests *those, pn_guest *g) {
    if (those->count == those->cap) {
        uint32_t cap = those->cap ? those->cap + those->cap / 4 : 64;
        pn_guest **all = pn_realloc(those->all, cap * sizeof *all);
        if (!all) return false;
        those->all = all;
        those->cap = cap;
    }
    g->at = those->count;
    those->all[those->count++] = g;
    return true;
}

static void take_out(pn_guests *those, pn_guest *g) {
    pn_guest *last = those->all[--those->count];
    those->all[last->at = g->at] = last;
    if (those->count) return;
    pn_free(those->all);
    *those = (pn_guests){0};
}

/* Ends the rest; the link is the caller's. */
static pn_link *rise(pn_guest *g, PyObject *connection) {
    pn_rest *rest = g->rest;
    pn_link *link = rest->link;
    PyObject *kept = rest->kept;
    take_out(&g->broker->guests, g);
    g->rests = false;
    g->connection = connection;
    pn_free(rest);
    Py_XDECREF(kept);
    return link;
}

int pn_guest_rest(LinkObject *link, const char *note, Py_ssize_t n, PyObject *kept) {
    pn_guest *g = link->guest;
    if (!g || !link->link || !g->connection || n > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "it is not of the native loop, or lost; or the note is too long");
        return -1;
    }
    pn_rest *rest = pn_malloc(offsetof(pn_rest, note) + (size_t)n);
    if (!rest || !add(&g->broker->guests, g)) {
        pn_free(rest);
        PyErr_NoMemory();
        return -1;
    }
    rest->link = link->link;
    rest->kept = Py_XNewRef(kept);
    rest->n = (uint16_t)n;
    memcpy(rest->note, note, (size_t)n);
    PyObject *connection = g->connection;
    g->rests = true;
    g->rest = rest;
    link->link = NULL;
    pn_guest_unlink(link); /* the loop's connection has a reference still */
    Py_DECREF(connection);
    return 0;
}

LinkObject *pn_guest_wake(pn_owner *owner) {
    pn_guest *g = (pn_guest *)owner;
    if (!g->rests && owner->object) return (LinkObject *)Py_NewRef((PyObject *)owner->object);
    if (!g->rests || !g->broker->wake) {
        PyErr_SetString(PyExc_RuntimeError, "there is nobody to wake");
        return NULL;
    }
    LinkObject *link = pn_guest_link(g);
    if (!link) return NULL;
    pn_house_enter(&g->broker->house, 0);
    uint64_t name = g->own.conn;
    pn_house_leave(&g->broker->house);
    const pn_rest *rest = g->rest;
    link->link = rest->link;
    PyObject *connection = PyObject_CallFunction(g->broker->wake, "KOy#O", (unsigned long long)name, link, rest->note, (Py_ssize_t)rest->n,
                                                 rest->kept ? rest->kept : Py_None);
    if (!connection) {
        link->link = NULL; /* it is the note's still */
        pn_guest_unlink(link);
        Py_DECREF(link);
        if (name) pn_loops_order(g->broker->house.loops, PN_ORDER_ABORT, name, NULL); /* whom nobody can answer for goes */
        return NULL;
    }
    rise(g, connection);
    Py_SETREF(link->owner, Py_NewRef(connection));
    return link;
}

PyObject *pn_guest_kept(const pn_guest *g) { return g->rests ? g->rest->kept : NULL; }

/* --- the end --- */

void pn_guest_let_go(pn_owner *owner) {
    pn_guest *g = (pn_guest *)owner;
    if (--g->refs) return;
    if (g->rests) { /* nobody will hear of its link */
        pn_link *link = rise(g, NULL);
        pn_house_enter(&g->broker->house, 0);
        pn_link_drop(link, pn_broker_now(g->broker->house.broker));
        pn_house_leave(&g->broker->house);
    }
    if (g->broker->house.loops) pn_loops_forget(g->broker->house.loops, owner);
    PyObject *connection = g->connection;
    pn_free(g);
    Py_XDECREF(connection);
}

PyObject *pn_guest_gone(pn_guest *g) {
    PyObject *connection = g->rests ? NULL : g->connection;
    if (!g->rests) g->connection = NULL;
    pn_guest_let_go(&g->own);
    return connection;
}
