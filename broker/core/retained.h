/* retained.h: the retained messages, one a topic name (5.0 §3.3.1.3).
 *
 * The rule it keeps: a store with limits that never lies. What it cannot keep is refused, and what that was to replace is forgotten;
 * what has expired is not handed out, and is forgotten in time.
 */
#ifndef PEANUT_RETAINED_H
#define PEANUT_RETAINED_H

#include "session.h"
#include "topic.h"

typedef struct pn_retained pn_retained;

pn_retained *pn_retained_new(uint64_t seed); /* owned; NULL without memory */
void pn_retained_free(pn_retained *r);

/* Keeps `pub` in place of what its topic had; an empty payload clears it (MQTT-3.3.1-6). PN_SUCCESS, or PN_QUOTA_EXCEEDED, and then
 * the topic has nothing any more: an old message must not pass for the present state. */
uint8_t pn_retained_put(pn_retained *r, pn_pub *pub, pn_env *env);

/* Keeps what has been kept before, whatever the limits say now; false without memory. */
bool pn_retained_restore(pn_retained *r, pn_pub *pub, pn_env *env);

/* The message of exactly `topic`, borrowed until the store changes, or NULL. */
const pn_message *pn_retained_get(const pn_retained *r, pn_span topic, const pn_env *env);

/* Begins a walk (topic.h) over every pn_message that `filter` matches, expired ones too. */
void pn_retained_walk(pn_retained *r, pn_span filter, pn_trie_walk *out);
/* The number (message.h) of the message that was put last. */
uint64_t pn_retained_last(const pn_retained *r);

/* Forgets what has expired. It looks at every message, so it does that once in a while. */
void pn_retained_tick(pn_retained *r, pn_env *env);

#endif
