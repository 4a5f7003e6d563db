/* subs.h: the index of subscriptions: which sessions a publication goes to.
 *
 * The rule it keeps: each subscription stands in two places, in its filter's list here and in its session's list, each knowing
 * the other's position, so that adding, removing and dropping a whole session never searches a long list.
 * A publication reaches a session once, with the highest QoS of its matching subscriptions and all their identifiers
 * (MQTT-3.3.4-2, MQTT-3.3.4-4); and it reaches one session of each group of a shared subscription (5.0 §4.8.2).
 */
#ifndef PEANUT_SUBS_H
#define PEANUT_SUBS_H

#include "session.h"
#include "topic.h"

typedef struct pn_subs pn_subs;

pn_subs *pn_subs_new(uint64_t seed); /* owned; NULL without memory */
void pn_subs_free(pn_subs *x);       /* whatever sessions may be in it: they are not touched */

/* A SUBSCRIBE's filter taken apart: `group` is empty unless it is `$share/group/filter`. False when it begins so and is not
 * well formed: no group, a wildcard in it, no filter (MQTT-4.8.2-1, MQTT-4.8.2-2). */
bool pn_subs_split(pn_span topic_filter, pn_span *group, pn_span *filter);

/* Adds or replaces (MQTT-3.8.4-3). `f->filter` is as in the packet; `id` the Subscription Identifier or 0. Returns PN_SUCCESS, or
 * PN_QUOTA_EXCEEDED (max_subscriptions, or no memory); *existed tells whether the session had the filter before. */
uint8_t pn_subs_add(pn_subs *x, pn_session *s, const pn_filter *f, uint32_t id, bool *existed, pn_env *env);
bool pn_subs_remove(pn_subs *x, pn_session *s, pn_span topic_filter, pn_env *env);
bool pn_subs_has(const pn_subs *x, const pn_session *s, pn_span topic_filter);
void pn_subs_remove_at(pn_subs *x, pn_session *s, uint32_t i, pn_env *env); /* moves the last one to its place */
void pn_subs_drop(pn_subs *x, pn_session *s, pn_env *env);

/* The session's i-th subscription: its filter, without group; the same as it was subscribed to; whether it has a group; its QoS, which
 * can be lowered. */
pn_span pn_subs_filter(const pn_session *s, uint32_t i);
pn_span pn_subs_name(const pn_session *s, uint32_t i);
bool pn_subs_shared(const pn_session *s, uint32_t i);
uint8_t pn_subs_qos(const pn_session *s, uint32_t i);
void pn_subs_lower(pn_session *s, uint32_t i, uint8_t qos);

/* What the record of a subscription has beside filter and identifier (records.h): its options in one byte; and the number under which deliveries
 * that came by way of a group remember it, which is given back to the session's i-th subscription, and (with a NULL session
 * only) not given to another any more. */
void pn_subs_options(uint8_t options, pn_filter *f);
void pn_subs_restore_serial(pn_subs *x, const pn_session *s, uint32_t i, uint64_t serial);

/* Gives what `s`, which is about to end, had been chosen for and has not been acknowledged to others of its groups: everything not sent,
 * and QoS 1 that was (5.0 §4.8.2; QoS 2 that was sent is not, MQTT-4.8.2-5). Its subscriptions stand yet. */
typedef void (*pn_subs_pass)(void *ctx, pn_session *to, pn_pub *pub, const pn_delivery *how);
void pn_subs_hand_over(const pn_session *s, pn_subs_pass pass, void *ctx);

/* What a topic was matched by, for whoever will ask for the same topic again: the filters, not their subscribers. It is good until a filter comes
 * or goes that could match the topic, by what stands before its first wildcard; subscribers of filters that there are may come and go,
 * and so may filters elsewhere. Of a topic that more than PN_MATCHED_MAX match nothing is remembered. */
enum { PN_MATCHED_MAX = 3, PN_EPOCH_LEVELS = 3 };
typedef struct pn_matched {
    uint64_t epoch; /* the sum of those that it depends on; 0: it is good for nothing */
    uint16_t epochs[PN_EPOCH_LEVELS];
    uint8_t count;
    uint32_t visited; /* nodes of the index: what finding out has cost, and counts as work again and again */
    struct pn_sub_node *nodes[PN_MATCHED_MAX];
} pn_matched;
pn_matched pn_subs_matched(const pn_subs *x, pn_span topic); /* an empty one, for this topic only */

/* Calls `each` once for every session that `topic` goes to; `memory` (may be NULL) is the topic's, is used and is made anew; `publisher` (may be NULL) is left out where it asked for No Local
 * (MQTT-3.8.3-3). how->qos is the subscription's,
 * how->retain its Retain As Published. The index must not be changed meanwhile.
 * Returns how many there were, or -1 without memory, and then `each` has not been called. */
typedef void (*pn_subs_fn)(void *ctx, pn_session *s, const pn_delivery *how);
uint64_t pn_subs_visited(const pn_subs *x); /* nodes of the index, by all routing so far; those that a memory saves count too */
int64_t pn_subs_route(pn_subs *x, pn_span topic, pn_matched *memory, const pn_session *publisher, pn_subs_fn each, void *ctx);
uint64_t pn_subs_recalled(const pn_subs *x); /* how often that was done from memory */

#endif
