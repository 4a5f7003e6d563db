/* topic.h: topic names and filters, and the trie that maps them to things: subscriptions, retained messages, rules.
 *
 * The rule it keeps: a trie knows levels and nothing else. What hangs on a node is a `void *` of its owner's. Work is
 * linear in the bytes of the topic and in the nodes that can match it; a hostile topic makes it no worse, nor can crafted
 * levels make the hashing slow (the seed is the caller's secret). Nothing recurses, and no walk allocates.
 */
#ifndef PEANUT_TOPIC_H
#define PEANUT_TOPIC_H

#include "buf.h"
#include "mqtt.h"

/* What a topic name or filter must be beyond UTF-8, which the packet decoder has checked (5.0 §4.7).
 * Name: not empty, no wildcard, no U+0000. Filter: `+` alone in its level, `#` alone and last.
 * Both: at most `max_length` bytes and `max_levels` levels. */
bool pn_topic_name_valid(pn_span name, uint32_t max_length, uint32_t max_levels);
bool pn_topic_filter_valid(pn_span filter, uint32_t max_length, uint32_t max_levels);
bool pn_topic_has_wildcard(pn_span filter);

/* True when `filter` begins with `$share/`, whether or not what follows is well formed (5.0 §4.8.2, MQTT-4.8.2-1). */
bool pn_topic_is_shared(pn_span filter);

/* Whether `filter` matches `name` (5.0 §4.7; MQTT-4.7.2-1: a leading wildcard does not match `$…`). The plain
 * definition; the tries must agree with it. */
bool pn_topic_matches(pn_span filter, pn_span name);

/* Whether every name that `inner` matches is matched by `outer`; whether some name is matched by both. Both are valid
 * filters. The `$` rule counts: `#` neither covers nor overlaps `$SYS/#`. And `+/#` covers `#`: they say the same. */
bool pn_topic_covers(pn_span outer, pn_span inner);
bool pn_topic_overlaps(pn_span a, pn_span b);

/* A trie over names or filters, level by level. Opaque, owned by whoever made it.
 * `seed` keys its hashing: random bytes, a secret of this process, so that nobody can craft levels that collide. */
typedef struct pn_trie pn_trie;
pn_trie *pn_trie_new(uint64_t seed); /* NULL without memory */
void pn_trie_free(pn_trie *t);       /* the values are the owner's to free first (pn_trie_each); NULL is fine */

/* The most levels a key may have; names to be matched may have any number. It bounds the stack that a walk takes
 * (50 KiB). A setting of the limit whose default is PN_MAX_TOPIC_LEVELS may go up to this. */
#define PN_TRIE_MAX_LEVELS 1024u

/* The slot of `key`, made when absent with a NULL in it. Borrowed until the next call that adds a key or removes this
 * one. Whoever puts a key fills its slot or removes it again. NULL without memory, and for a key of more than
 * PN_TRIE_MAX_LEVELS levels or PN_STRING_MAX bytes; the trie is then as it was. */
void **pn_trie_put(pn_trie *t, pn_span key);
/* The slot of `key` as pn_trie_put returned it, or NULL. */
void **pn_trie_get(pn_trie *t, pn_span key);
/* Removes `key`, and with it every node that carries nothing any more. The value is the caller's. An absent key is fine. */
void pn_trie_remove(pn_trie *t, pn_span key);
size_t pn_trie_count(const pn_trie *t); /* keys put and not removed; O(1) */

/* Calls `each(ctx, value)` once for every non-NULL value, in no order that means anything; a false from it ends the walk
 * and is returned. The trie must not be changed meanwhile.
 *  - match:  keys are filters, `name` is a name: every filter that matches it.
 *  - search: keys are names, `filter` is a filter: every name that it matches.
 *  - each:   everything. */
typedef bool (*pn_trie_fn)(void *ctx, void *value);
bool pn_trie_match(pn_trie *t, pn_span name, pn_trie_fn each, void *ctx);
bool pn_trie_search(pn_trie *t, pn_span filter, pn_trie_fn each, void *ctx);
bool pn_trie_each(const pn_trie *t, pn_trie_fn each, void *ctx);

/* A search that can be left and taken up again, while keys come and go between. A key that is there all the time is visited once; one
 * that comes meanwhile may be visited or not, and one that goes and comes again twice. A search that has begun must be ended
 * (pn_trie_walk_end), in whatever state it is, and before its trie is freed. */
typedef struct pn_trie_walk {
    pn_trie *trie;                     /* NULL: has not begun, or has ended */
    struct pn_trie_walk *prev, *next;  /* all of the trie's */
    pn_span filter;                    /* borrowed until the end */
    uint32_t at, depth;                /* where it stands */
    uint8_t phase;
} pn_trie_walk;
void pn_trie_walk_begin(pn_trie_walk *w, pn_trie *t, pn_span filter);
/* Goes on. Wildcards can make it visit every node and find nothing, so it takes one of *steps for each node. True: it has come to the
 * end. False: the steps are used up, or `each` has returned false; it can be taken up behind the value that `each` got last. */
bool pn_trie_walk_on(pn_trie_walk *w, uint64_t *steps, pn_trie_fn each, void *ctx);
void pn_trie_walk_end(pn_trie_walk *w);

/* Nodes that all matches so far have visited: what they have cost. */
uint64_t pn_trie_visited(const pn_trie *t);

/* Bytes that putting one more key may make the trie's own arrays grow by. */
size_t pn_trie_appetite(const pn_trie *t);

/* Rules: who may do what, first match decides, no match denies. Compiled once, then only read. A level `{id}` in a
 * rule's filter stands for the identity's name, compared as literal bytes: an identity cannot smuggle a wildcard or a
 * level separator in, nor reach a topic of the server's own (an identity that contains `/`, `+` or `#`, begins with `$` or
 * is empty matches no `{id}`). A topic's level that literally reads `{id}` is nothing special, and no rule can name it. */
enum { PN_MAY_PUBLISH = 1, PN_MAY_SUBSCRIBE = 2, PN_MAY_SHARE = 4 }; /* the last: subscribe by `$share/…` */
/* Which messages a rule for PUBLISH is for: all, only retained ones, only those not retained. */
enum pn_retain_rule { PN_RETAIN_ANY, PN_RETAIN_ONLY, PN_RETAIN_NEVER };

typedef struct pn_rule {
    bool allow;
    uint8_t actions; /* PN_MAY_…, together */
    uint8_t retain;
    uint8_t qos_max;      /* it is not for messages of a higher QoS, and grants subscriptions this at the most */
    pn_span filter;       /* without `$share/group/` */
    const pn_span *names; /* the identities that it is for, in any order; NULL: all */
    uint32_t name_count;
} pn_rule;

typedef struct pn_rules pn_rules;
pn_rules *pn_rules_new(uint64_t seed); /* owned by the caller; NULL without memory */
void pn_rules_free(pn_rules *r);       /* NULL is fine */
uint32_t pn_rules_count(const pn_rules *r);
/* Appends a rule; filter and names are copied. Returns PN_SUCCESS; PN_TOPIC_FILTER_INVALID, also for `{id}` as a part of a
 * level (it could only be a mistake) and for more than PN_TRIE_MAX_LEVELS levels; PN_QUOTA_EXCEEDED without memory. On
 * failure nothing was added. */
int pn_rules_add(pn_rules *r, const pn_rule *rule);
/* publish: the first rule whose filter matches `topic` decides. One walk through a trie, however many filters there are.
 * subscribe: the first rule that either allows and covers `filter`, or denies and overlaps it, decides; what the rules
 * say about `retain` does not count. *qos, the QoS that is asked for, is lowered to what the rule grants (NULL is fine).
 * The caller strips `$share/group/` first, and says by `shared` that it has. A filter that only several rules together
 * cover is denied. It takes the rules one by one, so the caller bounds how often it is asked by pn_rules_count.
 * Both return the deciding rule's number (from 0) in *rule when not NULL, -1 when none did. */
bool pn_rules_may_publish(const pn_rules *r, pn_span id, pn_span topic, uint8_t qos, bool retain, int *rule);
bool pn_rules_may_subscribe(const pn_rules *r, pn_span id, pn_span filter, bool shared, uint8_t *qos, int *rule);

#endif
