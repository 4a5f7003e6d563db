/* share.c: how much work one call does for one client.
 *
 * The rule it keeps: what a client sends may cost a thousand times what it cost to send (a message to ten thousand subscribers, filters
 * made to be visited in vain), but nobody waits for all of it. When a call has done SHARE of work, the rest of what the client has sent
 * stays in its input; the driver reads no more from it, and pn_broker_work goes on, a share a client and turn.
 */
#include "inside.h"

enum { SHARE = 4096 }; /* deliveries, and nodes of the index: a millisecond or two */

bool pn_may_go_on(pn_link *l) {
    pn_broker *b = l->broker;
    if (b->spent < SHARE || l->state != LINK_LIVE) return true;
    if (l->behind || !pn_pace(l)) return false;
    l->behind = true;
    l->pace->behind_prev = b->last_behind;
    l->pace->behind_next = NULL;
    *(b->last_behind ? &b->last_behind->pace->behind_next : &b->behind) = l;
    b->last_behind = l;
    if (!l->paused) pn_raise(b, PN_EVENT_PAUSE, l, PN_SUCCESS, NULL, (pn_span){0});
    return false;
}

void pn_behind_leave(pn_link *l) {
    pn_broker *b = l->broker;
    if (!l->behind) return;
    l->behind = false;
    link_pace *pace = l->pace;
    *(pace->behind_prev ? &pace->behind_prev->pace->behind_next : &b->behind) = pace->behind_next;
    *(pace->behind_next ? &pace->behind_next->pace->behind_prev : &b->last_behind) = pace->behind_prev;
}

void pn_behind_work(pn_broker *b) {
    while (b->behind && b->spent < SHARE) {
        pn_link *l = b->behind;
        pn_behind_leave(l);
        l->heard = b->env.now; /* its silence is ours */
        pn_drain(l);
        pn_mark_dirty(l);
        if (l->state == LINK_LIVE && !l->behind && !l->paused) pn_raise(b, PN_EVENT_RESUME, l, PN_SUCCESS, NULL, (pn_span){0});
    }
}
