/* loops.c: the work of loops.h. */
#include "loops.h"

#include "mem.h"

_Static_assert(PN_LANES == PN_LOOPS_MAX + 1, "a lane for each loop, and one for those that are none");

/* ==== Posts ===================================================================================================== */

int pn_loops_bell(const pn_loops *all) { return all->posts.bell; }

pn_post *pn_loops_posts(pn_loops *all, uint32_t *count) {
    pn_buf items = pn_mail_take(&all->posts);
    pn_post *posts = (pn_post *)(void *)items.p; /* a queue that is taken whole begins at its head */
    *count = pn_buf_len(&items) / (uint32_t)sizeof *posts;
    for (uint32_t i = 0; i < *count; i++) {
        if (posts[i].owner) posts[i].object = posts[i].owner->object;
    }
    return posts;
}

void pn_loops_forget(pn_loops *all, const pn_owner *owner) {
    pthread_mutex_lock(&all->posts.mutex);
    pn_post *posts = (pn_post *)(void *)all->posts.items.p;
    for (uint32_t i = 0; i < pn_buf_len(&all->posts.items) / sizeof *posts; i++) {
        if (posts[i].owner == owner) posts[i].owner = NULL;
    }
    pthread_mutex_unlock(&all->posts.mutex);
}

/* ==== Connections and orders ==================================================================================== */

/* The next name, and with it a loop. */
static uint64_t next_name(pn_loops *all) {
    uint64_t n = atomic_fetch_add_explicit(&all->names, 1, memory_order_relaxed);
    return n * PN_LOOPS_MAX + (n - 1) % all->count;
}

uint64_t pn_loops_add(pn_loops *all, int fd, void *object, pn_link *link) {
    uint64_t name = next_name(all);
    return pn_loop_add(all->of[pn_loop_of(name)], name, fd, object, link) ? name : 0;
}

uint64_t pn_loops_welcome(pn_loops *all, int fd, void *object, SSL_CTX *context, pn_owner *owner) {
    uint64_t name = next_name(all);
    return pn_loop_welcome(all->of[pn_loop_of(name)], name, fd, object, context, owner) ? name : 0;
}

bool pn_loops_order(pn_loops *all, uint8_t kind, uint64_t conn, void *thing) {
    unsigned of = pn_loop_of(conn);
    return pn_loop_order(all->of[of < all->count ? of : 0], kind, conn, thing);
}

uint32_t pn_loops_due(const pn_loops *all) {
    const pn_broker *b = all->house->broker;
    uint32_t which = pn_broker_busy(b); /* the first one does it: two who did would make the others wait twice as long */
    for (unsigned i = 0; i < all->count; i++) which |= (uint32_t)pn_broker_has_dirty(b, (uint8_t)(i + 1)) << i;
    return which;
}

void pn_loops_wake(pn_loops *all, uint32_t which) {
    for (unsigned i = 0; i < all->count; i++) {
        if (which >> i & 1) pn_loop_call(all->of[i]);
    }
}

/* ==== From the beginning to the end ============================================================================= */

/* A helper, in its thread: the loop gets the step back. Without memory for that, its connection has its deadline. */
static void step_is_done(void *arg, pn_step *step) {
    if (!pn_loops_order(arg, PN_ORDER_STEPPED, step->name, step)) pn_step_free(step);
}

pn_loops *pn_loops_new(pn_house *house, const pn_loop_times *times, unsigned count) {
    pn_loops *all = pn_calloc(1, sizeof *all);
    if (!all) return NULL;
    all->house = house;
    atomic_store(&all->names, 1);
    pn_loops_set_times(all, times);
    bool made = pn_mail_init(&all->posts) && count > 0 && count <= PN_LOOPS_MAX;
    for (unsigned i = 0; made && i < count; i++) {
        all->of[i] = pn_loop_new(all, i);
        made = all->of[i] != NULL;
        if (made) all->count++;
    }
    if (made) return all;
    pn_loops_free(all, NULL);
    return NULL;
}

bool pn_loops_help(pn_loops *all, unsigned threads) {
    all->helpers = pn_helpers_new(threads, step_is_done, all);
    return all->helpers != NULL;
}

bool pn_loops_start(pn_loops *all) {
    atomic_store(&all->ending, false);
    for (unsigned i = 0; i < all->count; i++) {
        if (pn_loop_start(all->of[i])) continue;
        pn_loops_stop(all);
        return false;
    }
    return true;
}

void pn_loops_stop(pn_loops *all) {
    atomic_store(&all->ending, true);
    pn_loops_wake(all, UINT32_MAX);
    for (unsigned i = 0; i < all->count; i++) pn_loop_join(all->of[i]);
    pn_helpers_free(all->helpers);
    all->helpers = NULL;
}

void pn_loops_free(pn_loops *all, void (*give)(void *)) {
    uint32_t count;
    pn_loops_stop(all);
    for (unsigned i = 0; i < all->count; i++) pn_loop_clear(all->of[i]);
    pn_post *posts = pn_loops_posts(all, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (posts[i].link) pn_link_drop(posts[i].link, pn_broker_now(all->house->broker)); /* whose nobody has become */
        if (posts[i].kind == PN_POST_GONE) give(posts[i].object);
        pn_free(posts[i].text);
    }
    pn_free(posts);
    for (unsigned i = 0; i < all->count; i++) pn_loop_free(all->of[i]);
    pn_mail_end(&all->posts);
    pn_free(all);
}

void pn_loops_turn(pn_loops *all, int timeout) {
    if (all->count > 1 && timeout) timeout = 1; /* what there is may be another's */
    for (unsigned i = 0; i < all->count; i++) pn_loop_turn(all->of[i], timeout);
}

void pn_loops_set_times(pn_loops *all, const pn_loop_times *times) {
    enum { LONGEST = 1000000000 }; /* twelve days: see is_late */
    atomic_store_explicit(&all->stall, times->stall < LONGEST ? times->stall : LONGEST, memory_order_relaxed);
    atomic_store_explicit(&all->linger, times->linger < LONGEST ? times->linger : LONGEST, memory_order_relaxed);
}

pn_loop_counts pn_loops_count_of(pn_loops *all, unsigned n) { return pn_loop_count(all->of[n]); }

pn_loop_counts pn_loops_count(pn_loops *all) {
    pn_loop_counts sum = {0};
    for (unsigned i = 0; i < all->count; i++) {
        pn_loop_counts one = pn_loop_count(all->of[i]);
        sum.connections += one.connections;
        sum.turns += one.turns;
        sum.receives += one.receives;
        sum.sends += one.sends;
    }
    return sum;
}
