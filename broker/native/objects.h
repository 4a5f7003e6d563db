/* objects.h: the Python objects that core/module.c makes, and native/pyloop.c and native/pyguest.c use. Python.h comes before it.
 *
 * The rule it keeps: only those three include it, and what is in an object is touched with the house's lock held where that is asked for.
 */
#ifndef PEANUT_OBJECTS_H
#define PEANUT_OBJECTS_H

#include "house.h"

/* Those that rest (guest.h), in no order. */
typedef struct pn_guests {
    struct pn_guest **all; /* borrowed, in an owned array */
    uint32_t count, cap;
} pn_guests;

typedef struct {
    PyObject_HEAD
    pn_house house;
    PyObject *wake;   /* strong: makes the object of a guest that has rested (guest.h); NULL: nobody does */
    pn_guests guests; /* that rest */
} BrokerObject;

typedef struct {
    PyObject_HEAD
    pn_link *link;          /* NULL once lost, and when it rests */
    BrokerObject *broker;   /* strong */
    PyObject *owner;        /* strong */
    pn_owner *own;          /* what the core knows as the link's owner, and whose object is this one: the next, or the guest's */
    pn_owner mine;
    struct pn_guest *guest; /* a reference; NULL: it is not of the native loop */
} LinkObject;

/* A Link that is nobody's yet: a loop opens it. `owner` is its owner; NULL with an exception set. */
LinkObject *pn_new_link(BrokerObject *broker, PyObject *owner);

/* Adds the classes Loop and Tls. 0, or -1 with an exception set. */
int pn_add_native(PyObject *module);

#endif
