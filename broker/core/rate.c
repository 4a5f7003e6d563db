/* rate.c: how fast one client may send: publish_rate, byte_rate, and what becomes of who is faster.
 *
 * The rule it keeps: a client within its rates notices nothing. One that is over them is read no further until it is within them again
 * (rate_action 0, throttling: TCP then slows it down, and nothing of what it sent is lost), or is gone (1, disconnecting: 0x96).
 * Counts run for a second and then begin anew. While a client is throttled its silence is ours and does not count against its keep
 * alive; what had been read already waits in its input.
 */
#include "inside.h"

#include "mem.h"

enum { WINDOW = 1000 }; /* milliseconds */

link_pace *pn_pace(pn_link *l) {
    if (!l->pace) l->pace = pn_calloc(1, sizeof *l->pace);
    if (!l->pace) pn_wire_break(&l->wire, &l->broker->env);
    return l->pace;
}

/* The pace of now; NULL without memory. */
static link_pace *turn(pn_link *l) {
    int64_t now = l->broker->env.now;
    link_pace *pace = pn_pace(l);
    if (!pace || now - pace->since < WINDOW) return pace;
    pace->since = now;
    pace->publishes = 0;
    pace->bytes = 0;
    return pace;
}

/* Nothing more is read before `until`. */
static void throttle(pn_link *l, int64_t until) {
    if (!l->paused) {
        l->paused = true;
        pn_link_watch(l);
        l->broker->env.stats.throttled++;
        pn_raise(l->broker, PN_EVENT_PAUSE, l, PN_MESSAGE_RATE_TOO_HIGH, NULL, (pn_span){0});
    }
    if (until > l->pace->paused_until) l->pace->paused_until = until;
}

uint8_t pn_count_bytes(pn_link *l, size_t n) {
    const pn_limits *limits = &l->broker->env.limits;
    if (!limits->byte_rate) return PN_SUCCESS;
    link_pace *pace = turn(l);
    if (!pace) return PN_QUOTA_EXCEEDED;
    pace->bytes += n;
    if (pace->bytes <= limits->byte_rate) return PN_SUCCESS;
    if (limits->rate_action == PN_RATE_DISCONNECT) return PN_MESSAGE_RATE_TOO_HIGH;
    throttle(l, pace->since + (int64_t)(pace->bytes * WINDOW / limits->byte_rate));
    return PN_SUCCESS;
}

bool pn_may_publish(pn_link *l) {
    const pn_limits *limits = &l->broker->env.limits;
    if (!limits->publish_rate || limits->rate_action == PN_RATE_DISCONNECT) return true;
    const link_pace *pace = turn(l);
    if (pace && pace->publishes < limits->publish_rate) return true;
    if (pace) throttle(l, pace->since + WINDOW);
    return false;
}

uint8_t pn_count_publish(pn_link *l) {
    const pn_limits *limits = &l->broker->env.limits;
    if (!limits->publish_rate) return PN_SUCCESS;
    link_pace *pace = turn(l);
    if (!pace) return PN_QUOTA_EXCEEDED;
    pace->publishes++;
    bool over = pace->publishes > limits->publish_rate && limits->rate_action == PN_RATE_DISCONNECT;
    return over ? PN_MESSAGE_RATE_TOO_HIGH : PN_SUCCESS;
}

void pn_rate_tick(pn_link *l) {
    int64_t now = l->broker->env.now;
    if (now < l->pace->paused_until) return;
    l->heard = now;
    l->paused = false;
    l->pace->paused_until = 0;
    pn_drain(l);
    pn_mark_dirty(l);
    if (l->state == LINK_LIVE && !l->paused && !l->behind) pn_raise(l->broker, PN_EVENT_RESUME, l, PN_SUCCESS, NULL, (pn_span){0});
}
