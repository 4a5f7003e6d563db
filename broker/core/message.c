/* message.c: the work of message.h. */
#include "message.h"

#include "mem.h"
#include "records.h"

static uint8_t *put(uint8_t *at, pn_span s) {
    if (s.n) memcpy(at, s.p, s.n);
    return at + s.n;
}

pn_message *pn_message_new(const pn_pub *pub) {
    if (pub->topic.n > PN_STRING_MAX) return NULL;
    size_t n = (size_t)pub->topic.n + pub->payload.n + pub->props.n;
    pn_message *m = pn_malloc(sizeof *m + n);
    if (!m) return NULL;
    *m = (pn_message){.refs = 1, .qos = pub->qos, .retain = pub->retain, .expires = pub->expires, .topic_n = (uint16_t)pub->topic.n,
                      .payload_n = pub->payload.n, .props_n = pub->props.n};
    put(put(put(m->data, pub->topic), pub->payload), pub->props);
    return m;
}

pn_message *pn_message_ref(pn_message *m) {
    m->refs++;
    return m;
}

void pn_message_drop(pn_message *m) {
    if (!m || --m->refs) return;
    if (m->kept) pn_forget_message(m);
    pn_free(m);
}

pn_pub pn_message_pub(pn_message *m) {
    return (pn_pub){.topic = pn_message_topic(m), .payload = pn_message_payload(m), .props = pn_message_props(m), .qos = m->qos,
                    .retain = m->retain, .expires = m->expires, .shared = m};
}

pn_message *pn_pub_share(pn_pub *pub) {
    if (!pub->shared) pub->shared = pn_message_new(pub);
    return pub->shared ? pn_message_ref(pub->shared) : NULL;
}

int64_t pn_pub_encode(const pn_pub *pub, pn_buf *out, const pn_send *form, int64_t now) {
    enum { EXPIRY = 5, ALIAS = 3, FIXED_HEADER = 5 };
    const pn_span none = {0};
    bool v5 = form->version >= PN_V5;
    bool expiring = v5 && pub->expires != PN_NEVER;
    pn_span topic = v5 && form->alias_known ? none : pub->topic;
    uint64_t props = 0;
    uint64_t rest = 2ull + topic.n + (form->qos ? 2 : 0) + pub->payload.n;
    if (v5) {
        props = (uint64_t)pub->props.n + (expiring ? EXPIRY : 0) + (form->alias ? ALIAS : 0);
        for (uint32_t i = 0; i < form->id_count; i++) props += 1 + pn_varint_len(form->ids[i]);
        if (props > PN_REMAINING_LENGTH_MAX) return 0;
        rest += pn_varint_len((uint32_t)props) + props;
    }
    if (rest > PN_REMAINING_LENGTH_MAX || 1 + pn_varint_len((uint32_t)rest) + rest > form->max_packet) return 0;
    uint8_t *start = pn_buf_room(out, (size_t)rest + FIXED_HEADER);
    if (!start) return -1;
    uint8_t *at = start;
    *at++ = (uint8_t)(PN_PUBLISH << 4 | (form->dup ? 8 : 0) | form->qos << 1 | (form->retain ? 1 : 0));
    at = pn_varint_put(at, (uint32_t)rest);
    *at++ = (uint8_t)(topic.n >> 8);
    *at++ = (uint8_t)topic.n;
    at = put(at, topic);
    if (form->qos) {
        *at++ = (uint8_t)(form->id >> 8);
        *at++ = (uint8_t)form->id;
    }
    if (v5) {
        at = pn_varint_put(at, (uint32_t)props);
        if (expiring) {
            int64_t left = pub->expires > now ? (pub->expires - now + 999) / 1000 : 0;
            at = pn_prop_put(at, PN_MESSAGE_EXPIRY_INTERVAL, none, none, (uint32_t)left);
        }
        if (form->alias) at = pn_prop_put(at, PN_TOPIC_ALIAS, none, none, form->alias);
        for (uint32_t i = 0; i < form->id_count; i++) {
            at = pn_prop_put(at, PN_SUBSCRIPTION_IDENTIFIER, none, none, form->ids[i]);
        }
        at = put(at, pub->props);
    }
    at = put(at, pub->payload);
    out->tail += (uint32_t)(at - start);
    return at - start;
}
