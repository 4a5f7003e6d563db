/* topics.c: what a client publishes to again and again.
 *
 * The rule it keeps: a node says the same few topics all its life, so what has been found out about one is remembered: that it is a valid name, that
 * the rules allow it, which filters match it (subs.h). Each part says for how long it is good, and whoever uses it looks at that. A topic is remembered when it
 * comes for the second time within a few messages: who says each of thousands of topics once pays for no memory. It is bounded:
 * KNOWN_TOPICS_MAX topics of a link, KNOWN_TOPIC_BYTES bytes each.
 */
#include "inside.h"

#include "mem.h"

struct link_topics {
    uint16_t tags[KNOWN_TOPICS_MAX];  /* of those in `known` */
    uint16_t heard[KNOWN_TOPICS_MAX]; /* the tags of the last that are not known; 0: none */
    uint8_t count, next_heard, next_known;
    known_topic known[];
};

/* Tells topics apart, never 0. No secret: who makes two that have the same spoils his own memory, and no more. */
static uint16_t tag_of(pn_span topic) {
    enum { WORD = 8, TO_32 = 32, TO_16 = 48 };
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint64_t tag = topic.n, word = 0;
    uint32_t i = 0;
    for (; i + WORD < topic.n; i += WORD) {
        memcpy(&word, topic.p + i, WORD);
        tag = (tag ^ word) * odd;
        tag ^= tag >> TO_32;
    }
    if (topic.n >= WORD) { /* the last one overlaps the one before it */
        memcpy(&word, topic.p + topic.n - WORD, WORD);
    } else if (topic.n) {
        memcpy(&word, topic.p, topic.n);
    }
    return (uint16_t)(((tag ^ word) * odd) >> TO_16 | 1);
}

known_topic *pn_known_topic(const pn_link *l, pn_span topic) {
    struct link_topics *t = l->topics;
    if (!t || !t->count || topic.n > KNOWN_TOPIC_BYTES) return NULL;
    uint16_t tag = tag_of(topic);
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->tags[i] == tag && pn_span_eq((pn_span){t->known[i].topic, t->known[i].length}, topic)) return &t->known[i];
    }
    return NULL;
}

/* Room for one more; false without memory. */
static bool grow(pn_link *l, uint32_t count) {
    size_t size = sizeof *l->topics + count * sizeof(known_topic);
    if (!pn_memory_has(&l->broker->env, size, PN_MEMORY_NEW)) return false;
    struct link_topics *t = pn_realloc(l->topics, size);
    if (!t) return false;
    if (!l->topics) *t = (struct link_topics){.count = 0};
    l->topics = t;
    return true;
}

known_topic *pn_learn_topic(pn_link *l, pn_span topic) {
    if (topic.n > KNOWN_TOPIC_BYTES || (!l->topics && !grow(l, 0))) return NULL;
    struct link_topics *t = l->topics;
    uint16_t tag = tag_of(topic);
    uint8_t i = 0;
    while (i < KNOWN_TOPICS_MAX && t->heard[i] != tag) i++;
    if (i == KNOWN_TOPICS_MAX) {
        t->heard[t->next_heard] = tag;
        t->next_heard = (uint8_t)((t->next_heard + 1) % KNOWN_TOPICS_MAX);
        return NULL;
    }
    t->heard[i] = 0;
    uint8_t at = t->count;
    if (at < KNOWN_TOPICS_MAX) {
        if (!grow(l, at + 1u)) return NULL;
        t = l->topics;
        t->count++;
    } else { /* in the place of one that has had its time */
        at = t->next_known;
        t->next_known = (uint8_t)((at + 1) % KNOWN_TOPICS_MAX);
    }
    known_topic *known = &t->known[at];
    t->tags[at] = tag;
    *known = (known_topic){.matched = pn_subs_matched(l->broker->subs, topic), .length = (uint8_t)topic.n};
    if (topic.n) memcpy(known->topic, topic.p, topic.n);
    return known;
}
