/* rate.c: how fast one client may send: publish_rate, byte_rate, and what becomes of who is faster.
 *
 * The rule it keeps: a client within its rates notices nothing. One that is over them is read no further until it is within them again
 * (rate_action 0, throttling: TCP then slows it down, and nothing of what it sent is lost), or is gone (1, disconnecting: 0x96).
 * Counts run for a second and then begin anew. While a client is throttled its silence is ours and does not count against its keep
 * alive; what had been read already waits in its input.
 */
#include "inside.h"

enum { WINDOW = 1000 }; /* milliseconds */

static void turn(pn_link *l) {
    int64_t now = l->broker->env.now;
    if (now - l->rate_since < WINDOW) return;
    l->rate_since = now;
    l->rate_publishes = 0;
    l->rate_bytes = 0;
}

/* Nothing more is read before `until`. */
static void throttle(pn_link *l, int64_t until) {
    if (!l->paused_until) {
        l->broker->env.stats.throttled++;
        pn_raise(l->broker, PN_EVENT_PAUSE, l, PN_MESSAGE_RATE_TOO_HIGH, NULL, (pn_span){0});
    }
    if (until > l->paused_until) l->paused_until = until;
}

uint8_t pn_count_bytes(pn_link *l, size_t n) {
    const pn_limits *limits = &l->broker->env.limits;
    if (!limits->byte_rate) return PN_SUCCESS;
    turn(l);
    l->rate_bytes += n;
    if (l->rate_bytes <= limits->byte_rate) return PN_SUCCESS;
    if (limits->rate_action == PN_RATE_DISCONNECT) return PN_MESSAGE_RATE_TOO_HIGH;
    throttle(l, l->rate_since + (int64_t)(l->rate_bytes * WINDOW / limits->byte_rate));
    return PN_SUCCESS;
}

bool pn_may_publish(pn_link *l) {
    const pn_limits *limits = &l->broker->env.limits;
    if (!limits->publish_rate || limits->rate_action == PN_RATE_DISCONNECT) return true;
    turn(l);
    if (l->rate_publishes < limits->publish_rate) return true;
    throttle(l, l->rate_since + WINDOW);
    return false;
}

uint8_t pn_count_publish(pn_link *l) {
    const pn_limits *limits = &l->broker->env.limits;
    if (!limits->publish_rate) return PN_SUCCESS;
    turn(l);
    l->rate_publishes++;
    bool over = l->rate_publishes > limits->publish_rate && limits->rate_action == PN_RATE_DISCONNECT;
    return over ? PN_MESSAGE_RATE_TOO_HIGH : PN_SUCCESS;
}

void pn_rate_tick(pn_link *l) {
    int64_t now = l->broker->env.now;
    if (now < l->paused_until) return;
    l->heard = now;
    l->paused_until = 0;
    pn_drain(l);
    pn_mark_dirty(l);
    if (l->state == LINK_LIVE && !l->paused_until && !l->behind) pn_raise(l->broker, PN_EVENT_RESUME, l, PN_SUCCESS, NULL, (pn_span){0});
}
