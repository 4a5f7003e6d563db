/* subs.h: the index of subscriptions: which sessions a publication goes to.
 *
 * The rule it keeps: each subscription stands in two places, in its filter's list here and in its session's list, each knowing
 * the other's position, so that adding, removing and dropping a whole session never searches a long list.
 * A publication reaches a session once, with the highest QoS of its matching subscriptions (MQTT-3.3.4-2).
 */
#ifndef PEANUT_SUBS_H
#define PEANUT_SUBS_H

#include "session.h"
#include "topic.h"

typedef struct pn_subs pn_subs;

pn_subs *pn_subs_new(uint64_t seed); /* owned; NULL without memory */
void pn_subs_free(pn_subs *x);       /* sessions must have been dropped from it */

/* Adds or replaces (MQTT-3.8.4-3). Returns PN_SUCCESS, or PN_QUOTA_EXCEEDED (max_subscriptions, or no memory);
 * *existed tells whether the session had the filter before. */
uint8_t pn_subs_add(pn_subs *x, pn_session *s, const pn_filter *f, bool *existed, pn_env *env);
bool pn_subs_remove(pn_subs *x, pn_session *s, pn_span filter, pn_env *env);
void pn_subs_drop(pn_subs *x, pn_session *s, pn_env *env);

/* The filter of the session's i-th subscription; removing it moves the last one to its place. */
pn_span pn_subs_filter(const pn_session *s, uint32_t i);

/* Calls `each` once for every session that `topic` goes to; `publisher` (may be NULL) is left out where it asked for No Local
 * (MQTT-3.8.3-3). `rap`: Retain As Published. The index must not be changed meanwhile.
 * Returns how many there were, or -1 without memory, and then `each` has not been called. */
typedef void (*pn_subs_fn)(void *ctx, pn_session *s, uint8_t qos, bool rap);
int64_t pn_subs_route(pn_subs *x, pn_span topic, const pn_session *publisher, pn_subs_fn each, void *ctx);

#endif
