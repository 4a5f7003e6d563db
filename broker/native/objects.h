/* objects.h: the Python objects that core/module.c makes and native/pyloop.c uses. Python.h comes before it.
 *
 * The rule it keeps: only those two include it, and what is in an object is touched with the house's lock held where that is asked for.
 */
#ifndef PEANUT_OBJECTS_H
#define PEANUT_OBJECTS_H

#include "house.h"

typedef struct {
    PyObject_HEAD
    pn_house house;
} BrokerObject;

typedef struct {
    PyObject_HEAD
    pn_link *link;        /* NULL once lost */
    BrokerObject *broker; /* strong */
    PyObject *owner;      /* strong */
    pn_owner own;         /* what the core knows as the link's owner; its object is this one */
} LinkObject;

/* A Link that is nobody's yet: a loop opens it. `owner` is its owner; NULL with an exception set. */
LinkObject *pn_new_link(BrokerObject *broker, PyObject *owner);

/* Adds the classes Loop and Tls. 0, or -1 with an exception set. */
int pn_add_native(PyObject *module);

#endif
