/* house.h: what drivers share: the core, its lock, and who owns a link.
 *
 * The rule it keeps: with loops in the house, whoever calls the core holds the lock (lock.h) from the call to the last look at what it
 * has borrowed; and nobody who holds it waits for anything. Without one, everything runs in one thread, and no lock is taken.
 */
#ifndef PEANUT_HOUSE_H
#define PEANUT_HOUSE_H

#include "broker.h"
#include "lock.h"

typedef struct pn_house {
    pn_broker *broker;
    struct pn_loops *loops; /* loops.h; NULL: there are none */
    bool idle;            /* the journal was empty when it was asked for last: PN_POST_JOURNAL says when there is something */
    pn_lock lock;
} pn_house;

/* What every link's owner is (pn_link_open). */
typedef struct pn_owner {
    void *object;       /* the driver's, borrowed */
    uint64_t conn;      /* a native loop's name for its connection; 0: the link is another driver's, or has none any more */
    struct pn_conn *at; /* the same; for that loop only */
    bool held;          /* PN_EVENT_PAUSE has come for it, and no PN_EVENT_RESUME yet; set by whoever takes the event */
} pn_owner;

/* The lock, where there is need of it; and the time, which never goes back for the core: who had the lock before may have looked at the
 * clock later. */
static inline int64_t pn_house_enter(pn_house *h, int64_t now) {
    if (h->loops) pn_lock_take(&h->lock);
    int64_t latest = pn_broker_now(h->broker);
    return h->loops && now < latest ? latest : now;
}

/* The next event. What says whether a link is read from is noted here, under the lock: of two threads that take events the later one to tell
 * the loop need not be the one with the later event. */
static inline bool pn_house_event(pn_house *h, pn_event *e) {
    if (!pn_broker_event(h->broker, e)) return false;
    if (e->kind == PN_EVENT_PAUSE || e->kind == PN_EVENT_RESUME) ((pn_owner *)e->owner)->held = e->kind == PN_EVENT_PAUSE;
    return true;
}

static inline void pn_house_leave(pn_house *h) {
    if (h->loops) pn_lock_give(&h->lock);
}

#endif
