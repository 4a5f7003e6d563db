/* message.c: the work of message.h. */
#include "message.h"

#include "mem.h"

pn_message *pn_message_new(const pn_pub *pub) {
    size_t n = (size_t)pub->topic.n + pub->payload.n + pub->props.n;
    pn_message *m = pn_malloc(sizeof *m + n);
    if (!m) return NULL;
    uint8_t *at = m->data;
    *m = (pn_message){.refs = 1, .qos = pub->qos, .retain = pub->retain, .expires = pub->expires};
    const pn_span *from[] = {&pub->topic, &pub->payload, &pub->props};
    pn_span *to[] = {&m->topic, &m->payload, &m->props};
    for (int i = 0; i < 3; i++) {
        *to[i] = (pn_span){at, from[i]->n};
        if (from[i]->n) memcpy(at, from[i]->p, from[i]->n);
        at += from[i]->n;
    }
    return m;
}

pn_message *pn_message_ref(pn_message *m) {
    m->refs++;
    return m;
}

void pn_message_drop(pn_message *m) {
    if (m && --m->refs == 0) pn_free(m);
}

pn_pub pn_message_pub(pn_message *m) {
    return (pn_pub){.topic = m->topic, .payload = m->payload, .props = m->props, .qos = m->qos, .retain = m->retain,
                    .expires = m->expires, .shared = m};
}

pn_message *pn_pub_share(pn_pub *pub) {
    if (!pub->shared) pub->shared = pn_message_new(pub);
    return pub->shared ? pn_message_ref(pub->shared) : NULL;
}

static uint8_t *put(uint8_t *at, pn_span s) {
    if (s.n) memcpy(at, s.p, s.n);
    return at + s.n;
}

int64_t pn_pub_encode(const pn_pub *pub, pn_buf *out, uint8_t version, uint32_t max_packet, uint8_t qos, bool retain,
                      bool dup, uint16_t id, int64_t now) {
    enum { EXPIRY = 5, FIXED_HEADER = 5 };
    bool expiring = version >= PN_V5 && pub->expires != PN_NEVER;
    uint32_t props = version >= PN_V5 ? pub->props.n + (expiring ? EXPIRY : 0) : 0;
    uint64_t rest = 2ull + pub->topic.n + (qos ? 2 : 0) + pub->payload.n;
    if (version >= PN_V5) rest += pn_varint_len(props) + (uint64_t)props;
    if (rest > PN_REMAINING_LENGTH_MAX || 1 + pn_varint_len((uint32_t)rest) + rest > max_packet) return 0;
    uint8_t *start = pn_buf_room(out, (size_t)rest + FIXED_HEADER);
    if (!start) return -1;
    uint8_t *at = start;
    *at++ = (uint8_t)(PN_PUBLISH << 4 | (dup ? 8 : 0) | qos << 1 | (retain ? 1 : 0));
    at = pn_varint_put(at, (uint32_t)rest);
    *at++ = (uint8_t)(pub->topic.n >> 8);
    *at++ = (uint8_t)pub->topic.n;
    at = put(at, pub->topic);
    if (qos) {
        *at++ = (uint8_t)(id >> 8);
        *at++ = (uint8_t)id;
    }
    if (version >= PN_V5) {
        at = pn_varint_put(at, props);
        if (expiring) {
            int64_t left = pub->expires > now ? (pub->expires - now + 999) / 1000 : 0;
            at = pn_prop_put(at, PN_MESSAGE_EXPIRY_INTERVAL, (pn_span){0}, (pn_span){0}, (uint32_t)left);
        }
        at = put(at, pub->props);
    }
    at = put(at, pub->payload);
    out->tail += (uint32_t)(at - start);
    return at - start;
}
