/* handlers.c: what a client that is in may send, packet by packet; each handler returns PN_SUCCESS or the reason code of the end. */
#include "inside.h"

#include "mem.h"

/* A handler returns PN_SUCCESS, or the reason code with which the link ends. */

/* The topic of a PUBLISH, by way of its Topic Alias where it has one (5.0 §3.3.2.3.4), and what is known about it, under the rules and limits of now. */
static uint8_t resolve_topic(pn_link *l, const pn_packet *p, pn_span *topic, known_topic **known) {
    const pn_limits *limits = &l->broker->env.limits;
    *topic = p->topic;
    *known = NULL;
    uint32_t alias = p->props.present ? pn_prop_num(&p->props, PN_TOPIC_ALIAS, 0) : 0;
    if (alias > l->alias_max) return PN_TOPIC_ALIAS_INVALID; /* MQTT-3.3.2-9 */
    if (alias && !p->topic.n) {
        const pn_message *before = l->aliases ? l->aliases[alias - 1] : NULL;
        if (!before) return PN_PROTOCOL_ERROR; /* 5.0 §3.3.2.3.4 */
        *topic = pn_message_topic(before);
        return PN_SUCCESS;
    }
    *known = pn_known_topic(l, p->topic);
    if (!*known || (*known)->generation != l->broker->generation) {
        if (!pn_topic_name_valid(p->topic, limits->max_topic_length, limits->max_topic_levels)) return PN_TOPIC_NAME_INVALID;
        if (!*known) *known = pn_learn_topic(l, p->topic);
        if (*known) (*known)->generation = l->broker->generation, (*known)->allowed = 0;
    }
    if (!alias) return PN_SUCCESS;
    if (!l->aliases) l->aliases = pn_calloc(l->alias_max, sizeof *l->aliases);
    pn_message *now = l->aliases ? pn_message_new(&(pn_pub){.topic = p->topic, .expires = PN_NEVER}) : NULL;
    if (!now) return PN_QUOTA_EXCEEDED;
    pn_message_drop(l->aliases[alias - 1]);
    l->aliases[alias - 1] = now;
    return PN_SUCCESS;
}

/* Whether the rules allow it. The session's slot and identity stay while the link is there. */
static bool may_publish(const pn_link *l, const pn_packet *p, pn_span topic, known_topic *known) {
    enum { RETAINED = 3 };
    const uint8_t bit = (uint8_t)(1 << (p->qos + (p->retain ? RETAINED : 0)));
    if (known && known->allowed & bit) return true;
    const pn_session *s = l->session;
    const pn_rules *rules = pn_broker_rules(l->broker, s->rules);
    if (!rules || !pn_rules_may_publish(rules, pn_session_identity(s), topic, p->qos, p->retain, NULL)) return false;
    if (known) known->allowed |= bit;
    return true;
}

/* What becomes of a PUBLISH that has not been here before: sent on, or the reason why not. */
static uint8_t judge_publish(pn_link *l, const pn_packet *p, pn_span topic, known_topic *known) {
    pn_broker *b = l->broker;
    pn_session *s = l->session;
    if (!may_publish(l, p, topic, known)) {
        pn_raise_denied(l, PN_NOT_AUTHORIZED, p->retain ? "publish retained " : "publish ", topic);
        return PN_NOT_AUTHORIZED; /* 3.1.1 has no word for it: acknowledged and dropped (3.1.1 MQTT-3.3.5-2) */
    }
    pn_pub pub = {.topic = topic, .payload = p->payload, .qos = p->qos, .retain = p->retain, .expires = PN_NEVER};
    if (p->props.present) {
        if (!pn_payload_is_as_said(b, &p->props, p->payload)) return PN_PAYLOAD_FORMAT_INVALID;
        int64_t lifetime = pn_lifetime_of(&p->props);
        if (lifetime != PN_NEVER) pub.expires = b->env.now + lifetime;
    }
    if (!pn_forwarded(b, &p->props, &pub.props)) return PN_QUOTA_EXCEEDED;
    uint64_t full = b->env.stats.dropped_retained_full;
    uint8_t reason = pn_publish(b, &pub, known ? &known->matched : NULL, s);
    if (b->env.stats.dropped_retained_full != full) pn_raise_denied(l, PN_QUOTA_EXCEEDED, "retain ", topic);
    return reason;
}

static void ask_whole(void *ctx, pn_session *s, const pn_delivery *how) {
    if (s->whole && how->qos) *(bool *)ctx = true;
}

/* Whether a publication of QoS 1 or 2, once acknowledged, would have to survive a crash. Asked only while that cannot be promised. */
static bool must_be_kept(pn_link *l, const pn_packet *p, pn_span topic) {
    bool must = (p->retain && pn_topic_is_kept(topic)) || (p->qos == 2 && l->session->whole);
    return must || pn_subs_route(l->broker->subs, topic, NULL, l->session, ask_whole, &must) < 0 || must;
}

static uint8_t on_publish(pn_link *l, const pn_packet *p) {
    pn_env *env = &l->broker->env;
    pn_session *s = l->session;
    uint64_t changes = pn_changes(env);
    env->stats.publishes_in_qos[p->qos]++;
    env->stats.publish_bytes_in += p->payload.n;
    uint8_t too_fast = pn_count_publish(l);
    if (too_fast) return too_fast;
    if (p->qos > l->max_qos) return PN_QOS_NOT_SUPPORTED;                        /* MQTT-3.2.2-11 */
    if (p->retain && !l->retains) return PN_RETAIN_NOT_SUPPORTED;       /* MQTT-3.2.2-14 */
    if (pn_prop_has(&p->props, PN_SUBSCRIPTION_IDENTIFIER)) return PN_PROTOCOL_ERROR;      /* MQTT-3.3.4-6 */
    pn_span topic;
    known_topic *known;
    uint8_t reason = resolve_topic(l, p, &topic, &known);
    if (reason) return reason;
    if (p->qos && pn_cannot_keep(env) && must_be_kept(l, p, topic)) {
        env->stats.dropped_unkept++;
        /* 3.1.1 MQTT-3.3.5-2: acknowledged it must not be, so the connection ends. And a QoS 2 message that was sent on must not be refused. */
        if (l->version < PN_V5 || (p->qos == 2 && pn_session_received(s, p->id))) return PN_QUOTA_EXCEEDED;
        pn_acknowledge(l, p->qos == 1 ? PN_PUBACK : PN_PUBREC, p->id, PN_QUOTA_EXCEEDED);
        return PN_SUCCESS;
    }
    bool again = false;
    if (p->qos == 2) {
        uint8_t begun = pn_session_begin_qos2(s, p->id, l->receive_max, env);
        if (begun == PN_RECEIVE_MAXIMUM_EXCEEDED || begun == PN_QUOTA_EXCEEDED) return begun; /* MQTT-3.3.4-7 */
        again = begun == PN_PACKET_ID_IN_USE; /* MQTT-4.3.3-10 */
    }
    if (!again) reason = judge_publish(l, p, topic, known);
    if (p->qos == 0) return reason == PN_PAYLOAD_FORMAT_INVALID ? reason : PN_SUCCESS; /* there is no other way to tell */
    if (p->qos == 2 && reason >= 0x80) pn_session_end_qos2(s, p->id, env); /* MQTT-4.3.3: a PUBREC of 0x80 or more ends the exchange */
    uint32_t from = pn_buf_len(&l->wire.out);
    pn_acknowledge(l, p->qos == 1 ? PN_PUBACK : PN_PUBREC, p->id, reason);
    /* What was received before may be on its way to the disk still: its connection ended with its PUBREC held. */
    if (pn_changes(env) != changes || (again && s->whole)) pn_wire_hold(&l->wire, from, env);
    return PN_SUCCESS;
}

static uint8_t on_ack(pn_link *l, const pn_packet *p) {
    if (p->type == PN_PUBREC && l->session->whole && pn_cannot_keep(&l->broker->env)) return PN_QUOTA_EXCEEDED; /* see pn_session_acked */
    pn_session_acked(l->session, p->type, p->id, p->reason, &l->broker->env);
    if (l->session->walks) pn_walks_wake(l->broker, l->session);
    return PN_SUCCESS;
}

static uint8_t on_pubrel(pn_link *l, const pn_packet *p) {
    pn_env *env = &l->broker->env;
    if (l->session->whole && pn_cannot_keep(env)) return PN_QUOTA_EXCEEDED; /* a PUBCOMP has no word for it */
    bool known = pn_session_end_qos2(l->session, p->id, env);
    uint32_t from = pn_buf_len(&l->wire.out);
    pn_wire_ack(&l->wire, PN_PUBCOMP, p->id, known ? PN_SUCCESS : PN_PACKET_ID_NOT_FOUND, env); /* MQTT-4.3.3-11 */
    if (l->session->whole) pn_wire_hold(&l->wire, from, env); /* else, after a crash, another message of this identifier would pass for this one */
    return PN_SUCCESS;
}

/* What a SUBSCRIBE's filter is answered with; below 0x80 it is in force. */
static uint8_t subscribe_one(pn_link *l, const pn_filter *f, uint32_t id, bool *existed) {
    pn_broker *b = l->broker;
    pn_session *s = l->session;
    const pn_limits *limits = &b->env.limits;
    pn_span group, filter;
    if (!pn_subs_split(f->filter, &group, &filter)) return PN_TOPIC_FILTER_INVALID;
    if (group.n && !limits->shared_subscriptions) return PN_SHARED_NOT_SUPPORTED;
    if (!pn_topic_filter_valid(filter, limits->max_topic_length, limits->max_topic_levels)) return PN_TOPIC_FILTER_INVALID;
    if (!limits->wildcard_subscriptions && pn_topic_has_wildcard(filter)) return PN_WILDCARDS_NOT_SUPPORTED;
    const pn_rules *rules = pn_broker_rules(b, s->rules);
    pn_filter granted = *f;
    if (rules && (b->judged += pn_rules_count(rules)) > PN_RULE_CHECKS_MAX) return PN_QUOTA_EXCEEDED;
    if (!rules || !pn_rules_may_subscribe(rules, pn_session_identity(s), filter, group.n != 0, &granted.qos, NULL)) {
        pn_raise_denied(l, PN_NOT_AUTHORIZED, "subscribe ", f->filter);
        return PN_NOT_AUTHORIZED;
    }
    if (s->whole && pn_cannot_keep(&b->env)) return PN_QUOTA_EXCEEDED;
    if (granted.qos > limits->max_qos) granted.qos = (uint8_t)limits->max_qos; /* MQTT-3.2.2-9, MQTT-3.8.4-7 */
    uint8_t failed = pn_subs_add(b->subs, s, &granted, id, existed, &b->env);
    return failed ? failed : granted.qos;
}

static uint8_t on_subscribe(pn_link *l, const pn_packet *p) {
    enum { SKIP_RETAINED = 0x40 }; /* in a verdict, beside the granted QoS */
    pn_broker *b = l->broker;
    uint32_t id = pn_prop_num(&p->props, PN_SUBSCRIPTION_IDENTIFIER, 0), at = 0;
    for (pn_filter f; pn_filter_next(p, &at, &f);) {
        if (f.no_local && pn_topic_is_shared(f.filter)) return PN_PROTOCOL_ERROR; /* MQTT-3.8.3-4 */
    }
    pn_buf verdicts = {0}, *wire = &b->scratch;
    pn_buf_drop(wire, pn_buf_len(wire));
    at = 0;
    bool kept = true;
    for (pn_filter f; kept && pn_filter_next(p, &at, &f);) {
        bool existed = false;
        uint8_t verdict = subscribe_one(l, &f, id, &existed);
        uint8_t reason = verdict >= 0x80 && l->version < PN_V5 ? PN_UNSPECIFIED_ERROR : verdict; /* 3.1.1 MQTT-3.9.3-2 */
        bool skip = f.retain_handling == 2 || (f.retain_handling == 1 && existed) || pn_topic_is_shared(f.filter); /* 5.0 §4.8.2 */
        if (verdict < 0x80 && skip) verdict |= SKIP_RETAINED;
        kept = pn_buf_add(&verdicts, &verdict, 1) && pn_buf_add(wire, &reason, 1);
    }
    if (kept) {
        pn_packet ack = {.type = PN_SUBACK, .id = p->id, .payload = {pn_buf_head(wire), pn_buf_len(wire)}};
        uint32_t from = pn_buf_len(&l->wire.out);
        pn_wire_send(&l->wire, &ack, &b->env);
        if (l->session->whole) pn_wire_hold(&l->wire, from, &b->env);
        const uint8_t *verdict = pn_buf_head(&verdicts);
        at = 0;
        for (pn_filter f; kept && pn_filter_next(p, &at, &f); verdict++) {
            if (*verdict <= 2) kept = pn_walk_begin(b, l->session, f.filter, *verdict, id);
        }
        pn_walks_go(b, l->session);
    }
    pn_buf_free(&verdicts);
    return kept ? PN_SUCCESS : PN_QUOTA_EXCEEDED;
}

static uint8_t on_unsubscribe(pn_link *l, const pn_packet *p) {
    pn_broker *b = l->broker;
    bool refused = l->session->whole && pn_cannot_keep(&b->env);
    if (refused && l->version < PN_V5) return PN_QUOTA_EXCEEDED; /* an UNSUBACK of 3.1.1 can only say yes */
    pn_buf *reasons = &b->scratch;
    pn_buf_drop(reasons, pn_buf_len(reasons));
    uint32_t at = 0;
    for (pn_filter f; pn_filter_next(p, &at, &f);) {
        bool existed = !refused && pn_subs_remove(b->subs, l->session, f.filter, &b->env);
        uint8_t reason = refused ? PN_UNSPECIFIED_ERROR : existed ? PN_SUCCESS : PN_NO_SUBSCRIPTION_EXISTED;
        if (!pn_buf_add(reasons, &reason, 1)) return PN_QUOTA_EXCEEDED;
    }
    pn_packet ack = {.type = PN_UNSUBACK, .id = p->id};
    if (l->version >= PN_V5) ack.payload = pn_span_of(pn_buf_head(reasons), pn_buf_len(reasons));
    uint32_t from = pn_buf_len(&l->wire.out);
    pn_wire_send(&l->wire, &ack, &b->env);
    if (l->session->whole) pn_wire_hold(&l->wire, from, &b->env);
    return PN_SUCCESS;
}

static uint8_t on_pingreq(pn_link *l, const pn_packet *p) {
    (void)p;
    pn_packet answer = {.type = PN_PINGRESP};
    pn_wire_send(&l->wire, &answer, &l->broker->env);
    return PN_SUCCESS;
}

static uint8_t on_disconnect(pn_link *l, const pn_packet *p) {
    pn_session *s = l->session;
    if (pn_prop_has(&p->props, PN_SESSION_EXPIRY_INTERVAL)) {
        uint32_t wish = pn_prop_num(&p->props, PN_SESSION_EXPIRY_INTERVAL, 0), most = l->broker->env.limits.session_expiry_max;
        if (s->expiry == 0 && wish != 0 && most != 0) return PN_PROTOCOL_ERROR; /* 5.0 §3.14.2.2.2; with 0 the most, it was us who made it 0 */
        s->expiry = wish < most ? wish : most;
    }
    pn_link_end(l, p->reason, p->reason != PN_SUCCESS);
    return PN_SUCCESS;
}

static uint8_t on_connect_again(pn_link *l, const pn_packet *p) {
    (void)l, (void)p;
    return PN_PROTOCOL_ERROR; /* MQTT-3.1.0-2 */
}

/* What a server may be sent once it has answered a CONNECT. NULL: only servers send it. */
uint8_t (*const pn_handlers[PN_TYPES])(pn_link *, const pn_packet *) = {
    [PN_CONNECT] = on_connect_again, [PN_PUBLISH] = on_publish,         [PN_PUBACK] = on_ack,
    [PN_PUBREC] = on_ack,            [PN_PUBREL] = on_pubrel,           [PN_PUBCOMP] = on_ack,
    [PN_SUBSCRIBE] = on_subscribe,   [PN_UNSUBSCRIBE] = on_unsubscribe, [PN_PINGREQ] = on_pingreq,
    [PN_DISCONNECT] = on_disconnect, [PN_AUTH] = pn_on_auth,
};
