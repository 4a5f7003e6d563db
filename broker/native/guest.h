/* guest.h: what Python has of a connection of the native loop: objects while something is to be decided about it, a note while it rests.
 *
 * The rule it keeps: to the loop a guest is the object of its connection, to the core the owner of its link, and both know it by one address from
 * its first order to its last post. Python's objects (the connection's and the Link) come and go: whoever is in and says nothing that Python has to
 * hear needs none, and when something is heard of it they are made again from what was noted, before anybody sees it. Ten thousand
 * that rest cost Python nothing, its collector's rounds included.
 *
 * All of it is touched by whoever has Python's lock. The loop's thread reads of a guest what house.h gives it, and nothing else.
 */
#ifndef PEANUT_GUEST_H
#define PEANUT_GUEST_H

#include "objects.h"

typedef struct pn_rest pn_rest;

typedef struct pn_guest {
    pn_owner own;         /* first: an owner without an object is a guest's. Its object is the Link, NULL while it rests */
    BrokerObject *broker; /* borrowed: the Loop has a reference, and outlives all of them */
    union {
        PyObject *connection; /* strong, until GONE has been read */
        pn_rest *rest;        /* owned: while it rests */
    };
    uint32_t at; /* while it rests: its place among those */
    unsigned refs : 31; /* the loop's connection, until GONE has been read; its Link; whoever holds it for a moment */
    unsigned rests : 1;
} pn_guest;

pn_guest *pn_guest_new(BrokerObject *broker, PyObject *connection); /* one reference; NULL with an exception set */
LinkObject *pn_guest_link(pn_guest *guest);                        /* its Link, new; NULL with an exception set */
void pn_guest_unlink(LinkObject *link);                            /* the Link goes */

void pn_guest_hold(pn_owner *owner);
void pn_guest_let_go(pn_owner *owner);

/* Its objects go, and the note stays, with `kept`, which may be NULL. -1 with an exception set: then it does not rest. */
int pn_guest_rest(LinkObject *link, const char *note, Py_ssize_t n, PyObject *kept);
/* The Link of one that rests or has rested a moment ago: made anew, a reference. NULL with an exception set: then it rests on. */
LinkObject *pn_guest_wake(pn_owner *owner);
/* What was kept with the note; borrowed. */
PyObject *pn_guest_kept(const pn_guest *guest);

/* The loop's connection is gone, and nothing more is heard of it. The connection's object, a reference; NULL: it rests, for waking it has failed. */
PyObject *pn_guest_gone(pn_guest *guest);

#endif
