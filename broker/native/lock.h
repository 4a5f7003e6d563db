/* lock.h: the one lock of a house: whoever calls the core holds it.
 *
 * The rule it keeps: it is fair. The loop's thread takes it again right after it has let go, and without a queue nobody else would
 * ever come in; here whoever asks next is next. Who holds it waits for nothing: no socket, no disk, and not for Python's own lock.
 * It is taken once for many packets, never for one.
 */
#ifndef PEANUT_LOCK_H
#define PEANUT_LOCK_H

#include <pthread.h>
#include <stdatomic.h>

typedef struct pn_lock {
    pthread_mutex_t queue; /* held by the one who is next */
    pthread_mutex_t mutex;
    atomic_uint waiting; /* those who have asked and not got it yet: a hint */
} pn_lock;

static inline void pn_lock_init(pn_lock *l) {
    pthread_mutex_init(&l->queue, NULL);
    pthread_mutex_init(&l->mutex, NULL);
    atomic_init(&l->waiting, 0);
}

static inline void pn_lock_end(pn_lock *l) {
    pthread_mutex_destroy(&l->queue);
    pthread_mutex_destroy(&l->mutex);
}

static inline void pn_lock_take(pn_lock *l) {
    atomic_fetch_add_explicit(&l->waiting, 1, memory_order_relaxed);
    pthread_mutex_lock(&l->queue);
    pthread_mutex_lock(&l->mutex);
    pthread_mutex_unlock(&l->queue);
    atomic_fetch_sub_explicit(&l->waiting, 1, memory_order_relaxed);
}

static inline void pn_lock_give(pn_lock *l) { pthread_mutex_unlock(&l->mutex); }

/* Lets whoever waits in between; true if it was given away for a moment. */
static inline int pn_lock_share(pn_lock *l) {
    if (!atomic_load_explicit(&l->waiting, memory_order_relaxed)) return 0;
    pn_lock_give(l);
    pn_lock_take(l);
    return 1;
}

#endif
