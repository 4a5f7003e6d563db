/* connect.c: from a CONNECT to a session: the question to the driver, its verdict, the CONNACK, and enhanced authentication.
 *
 * The CONNECT stays at the head of the link's input until the verdict, and is decoded from there whenever it is needed.
 */
#include "inside.h"

#include "mem.h"

bool pn_link_connect(const pn_link *l, pn_packet *out) {
    if (l->state != LINK_ASKING) return false;
    return pn_packet_decode(pn_buf_head(&l->in), pn_buf_len(&l->in), 0, PN_PACKET_SIZE_MAX, out) > 0;
}

/* What the CONNECT says about the connection, within our limits. */
static void set_up(pn_link *l, const pn_packet *connect) {
    const pn_limits *limits = &l->broker->env.limits;
    const pn_props *props = &connect->props; /* empty before 5.0, so that the defaults count */
    bool v5 = connect->version >= PN_V5;
    l->keep_alive = connect->keep_alive;
    if (v5 && limits->server_keepalive) { /* MQTT-3.1.2-21 */
        l->keep_alive = (uint16_t)limits->server_keepalive;
    } else if (v5 && (l->keep_alive == 0 || l->keep_alive > limits->keepalive_max) && limits->keepalive_max < PN_KEEPALIVE_MAX) {
        l->keep_alive = (uint16_t)limits->keepalive_max;
    }
    uint32_t window = pn_prop_num(props, PN_RECEIVE_MAXIMUM, 65535), aliases = pn_prop_num(props, PN_TOPIC_ALIAS_MAXIMUM, 0);
    l->wire.window = (uint16_t)(window < limits->max_inflight ? window : limits->max_inflight);
    l->wire.max_packet = pn_prop_num(props, PN_MAXIMUM_PACKET_SIZE, PN_PACKET_SIZE_MAX);
    l->wire.version = connect->version;
    l->wire.explains = pn_prop_num(props, PN_REQUEST_PROBLEM_INFORMATION, 0); /* absent would allow it too; asked for is better */
    l->wire.alias_max = (uint16_t)(aliases < limits->topic_alias_maximum ? aliases : limits->topic_alias_maximum);
    l->alias_max = v5 ? (uint16_t)limits->topic_alias_maximum : 0;
    l->max_packet = limits->max_packet_size;
    l->receive_max = (uint16_t)limits->receive_maximum;
    l->max_qos = limits->max_qos & 3u;
    l->retains = limits->retain_available;
}

static pn_span method_of(const pn_link *l) {
    return l->proof ? pn_span_of(pn_buf_head(&l->proof->method), pn_buf_len(&l->proof->method)) : (pn_span){0};
}

static bool keep_method(pn_link *l, pn_span method) {
    if (!l->proof) l->proof = pn_calloc(1, sizeof *l->proof);
    return l->proof && pn_buf_add(&l->proof->method, method.p, method.n);
}

void pn_proof_free(link_proof *p) {
    if (!p) return;
    pn_buf_free(&p->method);
    pn_buf_free(&p->data);
    pn_free(p);
}

/* A CONNECT is at the head of `in`: asks the driver for its verdict, unless there is nothing to ask. */
void pn_ask(pn_link *l) {
    pn_packet connect;
    if (!pn_link_connect(l, &connect)) return;
    set_up(l, &connect);
    if (connect.client_id.n > l->broker->env.limits.max_client_id) {
        pn_refuse(l, PN_CLIENT_ID_NOT_VALID, (pn_span){0}); /* MQTT-3.1.3-8; 3.1.1 MQTT-3.1.3-9 */
    } else if (pn_parks_too_much(l, 0)) {
        pn_link_fail(l, PN_QUOTA_EXCEEDED);
    } else {
        pn_prop method;
        if (pn_prop_find(&connect.props, PN_AUTHENTICATION_METHOD, &method) && !keep_method(l, method.value)) {
            pn_link_fail(l, PN_QUOTA_EXCEEDED);
            return;
        }
        pn_raise(l->broker, PN_EVENT_CONNECT, l, PN_SUCCESS, NULL, (pn_span){0});
    }
}

/* --- letting nobody in --- */

/* The return code of 3.1.1 (§3.2.2.3) nearest to a reason code of 5.0. */
static uint8_t return_code(uint8_t reason) {
    switch (reason) {
    case PN_SUCCESS: return 0;
    case PN_UNSUPPORTED_VERSION: return 1;
    case PN_CLIENT_ID_NOT_VALID: return 2;
    case PN_SERVER_UNAVAILABLE:
    case PN_SERVER_BUSY:
    case PN_SERVER_SHUTTING_DOWN:
    case PN_USE_ANOTHER_SERVER:
    case PN_SERVER_MOVED:
    case PN_CONNECTION_RATE_EXCEEDED:
    case PN_UNSPECIFIED_ERROR:
    case PN_QUOTA_EXCEEDED: return 3;
    case PN_BAD_USER_OR_PASSWORD: return 4;
    default: return 5;
    }
}

void pn_refuse(pn_link *l, uint8_t reason, pn_span text) {
    pn_broker *b = l->broker;
    pn_packet connect;
    if (!pn_link_connect(l, &connect)) return;
    pn_packet p = {.type = PN_CONNACK, .reason = l->version >= PN_V5 ? reason : return_code(reason)};
    if (l->version >= PN_V5) {
        p.props = pn_props_begin(b);
        bool referred = (reason == PN_USE_ANOTHER_SERVER || reason == PN_SERVER_MOVED) && text.n;
        if (referred) {
            pn_add_prop(b, &p.props, PN_SERVER_REFERENCE, text, 0);
        } else if (text.n || l->wire.explains) {
            pn_explain(l, &p, text);
        }
    }
    pn_wire_send(&l->wire, &p, &b->env);
    pn_link_end(l, reason, false);
}

void pn_link_refuse(pn_link *l, uint8_t reason, pn_span text, int64_t now) {
    pn_enter(l->broker, now);
    pn_refuse(l, reason, text);
    pn_settle(l->broker);
}

/* --- letting a client in --- */

/* MQTT-3.1.2-8: the will is kept with the session. False without memory. */
static bool keep_will(pn_broker *b, pn_session *s, const pn_packet *connect) {
    if (!connect->has_will) return true;
    pn_pub pub = {.topic = connect->will_topic, .payload = connect->will_payload, .qos = connect->will_qos,
                  .retain = connect->will_retain, .expires = PN_NEVER};
    if (!pn_forwarded(b, &connect->will_props, &pub.props)) return false;
    int64_t lifetime = pn_lifetime_of(&connect->will_props); /* 5.0 §3.1.3.2.4: counted from its publication */
    s->will = pn_will_new(&pub, lifetime, pn_prop_num(&connect->will_props, PN_WILL_DELAY_INTERVAL, 0));
    return s->will != NULL;
}

/* The session under `v->session`, emptied or as it was left, without a link; NULL when there is no room for one. */
static pn_session *session_for(pn_broker *b, const pn_verdict *v, bool clean_start, bool *present) {
    pn_session *s = pn_session_find(b, v->session);
    if (s && s->wire) { /* MQTT-3.1.4-3 */
        pn_link_fail(pn_link_of(s->wire), PN_SESSION_TAKEN_OVER);
        s = pn_session_find(b, v->session);
    } else if (s && !pn_session_wake(b, s)) { /* its time was up before a tick said so */
        s = NULL;
    }
    if (s && clean_start) { /* MQTT-3.1.2-4 */
        pn_publish_will(b, s); /* 5.0 §3.1.3.2.2: a delayed will is due when its session ends */
        pn_session_end(b, s);
        s = NULL;
    }
    *present = s != NULL;
    if (!s) return pn_session_begin(b, v->session, v->identity);
    pn_session_unsleep(b, s);
    pn_session_drop_will(s); /* MQTT-3.1.3-9: the client is back before the delay is over */
    s->ends_at = PN_NEVER;
    return s;
}

/* Whether a payload that calls itself text is (5.0 §3.3.2.3.2: a receiver may check). */
bool pn_payload_is_as_said(const pn_broker *b, const pn_props *props, pn_span payload) {
    if (!b->env.limits.payload_format_check || !pn_prop_num(props, PN_PAYLOAD_FORMAT_INDICATOR, 0)) return true;
    return pn_utf8_valid(payload.p, payload.n);
}

/* Seconds that the session is to outlive its connection: what the client wishes, and what it gets (5.0 §3.1.2.11.2; §3.1.2.4 says how 3.1.1 maps). */
static uint32_t wished_expiry(const pn_link *l, const pn_packet *connect) {
    if (connect->version >= PN_V5) return pn_prop_num(&connect->props, PN_SESSION_EXPIRY_INTERVAL, 0);
    return connect->clean_start ? 0 : l->broker->env.limits.session_expiry_max;
}

static uint32_t granted_expiry(const pn_link *l, const pn_packet *connect) {
    uint32_t wish = wished_expiry(l, connect), most = l->broker->env.limits.session_expiry_max;
    return wish < most ? wish : most;
}

/* The CONNACK that lets the client in; its properties are in `scratch`, where objection has seen to the room. */
static pn_packet connack(pn_link *l, const pn_verdict *v, const pn_packet *connect, bool present) {
    pn_broker *b = l->broker;
    const pn_limits *limits = &b->env.limits;
    const pn_span none = {0};
    pn_packet ack = {.type = PN_CONNACK, .session_present = present && connect->version >= PN_V311};
    if (connect->version < PN_V5) return ack;
    pn_props *props = &ack.props;
    *props = pn_props_begin(b);
    uint32_t expiry = granted_expiry(l, connect);
    if (expiry != wished_expiry(l, connect)) pn_add_prop(b, props, PN_SESSION_EXPIRY_INTERVAL, none, expiry);
    pn_add_prop(b, props, PN_RECEIVE_MAXIMUM, none, l->receive_max);
    pn_add_prop(b, props, PN_MAXIMUM_PACKET_SIZE, none, l->max_packet);
    if (v->assigned.n) pn_add_prop(b, props, PN_ASSIGNED_CLIENT_IDENTIFIER, v->assigned, 0);
    if (l->keep_alive != connect->keep_alive) pn_add_prop(b, props, PN_SERVER_KEEP_ALIVE, none, l->keep_alive);
    if (l->alias_max) pn_add_prop(b, props, PN_TOPIC_ALIAS_MAXIMUM, none, l->alias_max);
    if (l->max_qos < 2) pn_add_prop(b, props, PN_MAXIMUM_QOS, none, l->max_qos);
    if (!l->retains) pn_add_prop(b, props, PN_RETAIN_AVAILABLE, none, 0);
    if (!limits->wildcard_subscriptions) pn_add_prop(b, props, PN_WILDCARD_SUBSCRIPTION_AVAILABLE, none, 0);
    if (!limits->shared_subscriptions) pn_add_prop(b, props, PN_SHARED_SUBSCRIPTION_AVAILABLE, none, 0);
    if (v->response_information.n && pn_prop_num(&connect->props, PN_REQUEST_RESPONSE_INFORMATION, 0)) { /* MQTT-3.1.2-28 */
        pn_add_prop(b, props, PN_RESPONSE_INFORMATION, v->response_information, 0);
    }
    if (method_of(l).n) { /* MQTT-4.12.0-5 */
        pn_add_prop(b, props, PN_AUTHENTICATION_METHOD, method_of(l), 0);
        if (v->proof.n) pn_add_prop(b, props, PN_AUTHENTICATION_DATA, v->proof, 0);
    }
    return ack;
}

/* What stands against letting the client in although the driver would; PN_SUCCESS: nothing. */
static uint8_t objection(pn_link *l, const pn_verdict *v, const pn_packet *connect) {
    enum { PROPS = 96 }; /* bytes of all properties that a CONNACK may have, without the texts */
    pn_broker *b = l->broker;
    const pn_limits *limits = &b->env.limits;
    if (connect->has_will) {
        if (connect->will_qos > l->max_qos) return PN_QOS_NOT_SUPPORTED;                        /* MQTT-3.2.2-12 */
        if (connect->will_retain && !l->retains) return PN_RETAIN_NOT_SUPPORTED;       /* MQTT-3.2.2-13 */
        if (!pn_payload_is_as_said(b, &connect->will_props, connect->will_payload)) return PN_PAYLOAD_FORMAT_INVALID;
        if (!pn_topic_name_valid(connect->will_topic, limits->max_topic_length, limits->max_topic_levels)) return PN_TOPIC_NAME_INVALID;
        const pn_rules *rules = pn_broker_rules(b, v->rules);
        if (!rules || !pn_rules_may_publish(rules, v->identity, connect->will_topic, connect->will_qos, connect->will_retain, NULL)) {
            pn_raise_denied(l, PN_NOT_AUTHORIZED, "will ", connect->will_topic);
            return PN_NOT_AUTHORIZED;
        }
    }
    if (pn_cannot_keep(&b->env)) { /* what is on the disk may be gone on with, but not be replaced */
        bool present = pn_session_find(b, v->session) != NULL;
        if (present ? connect->clean_start : granted_expiry(l, connect) != 0) return PN_QUOTA_EXCEEDED;
    }
    pn_props_begin(b);
    size_t texts = (size_t)v->assigned.n + v->proof.n + v->response_information.n + method_of(l).n;
    if (!pn_buf_room(&b->scratch, PROPS + texts)) return PN_QUOTA_EXCEEDED;
    pn_packet ack = connack(l, v, connect, false);
    int64_t size = pn_packet_encode(&ack, connect->version, NULL, 0);
    return size > 0 && size <= l->wire.max_packet ? PN_SUCCESS : PN_PACKET_TOO_LARGE; /* MQTT-3.2.0-1: nothing can go before it */
}

/* Makes the session what the CONNECT asks for; false without memory to record it, and then it is as it was. */
static bool begin(pn_link *l, pn_session *s, const pn_verdict *v, const pn_packet *connect) {
    pn_broker *b = l->broker;
    uint32_t expiry = s->expiry;
    bool judged_anew = s->rules != v->rules;
    s->expiry = granted_expiry(l, connect);
    s->version = connect->version;
    s->rules = v->rules;
    s->proved_until = PN_NEVER;
    if (judged_anew) pn_session_judge(b, s); /* a new one has nothing that could be judged */
    if (pn_session_keep(b, s)) return true;
    s->expiry = expiry;
    return false;
}

bool pn_link_accept(pn_link *l, const pn_verdict *v, int64_t now) {
    pn_broker *b = l->broker;
    pn_env *env = pn_enter(b, now);
    pn_packet c;
    if (!pn_link_connect(l, &c)) return false;
    bool present = false;
    pn_session *s = NULL;
    uint64_t changes = pn_changes(env);
    uint8_t reason = objection(l, v, &c);
    if (!reason) {
        s = session_for(b, v, c.clean_start, &present);
        if (!s || !keep_will(b, s, &c) || !begin(l, s, v, &c)) reason = PN_QUOTA_EXCEEDED;
    }
    if (reason) {
        if (s) pn_session_sleep(b, s); /* no room for its will: a session that was there goes on sleeping */
        pn_refuse(l, reason, (pn_span){0});
        pn_settle(b);
        return false;
    }
    pn_packet ack = connack(l, v, &c, present);
    uint32_t from = pn_buf_len(&l->wire.out);
    pn_wire_send(&l->wire, &ack, env);
    if (pn_changes(env) != changes) pn_wire_hold(&l->wire, from, env);
    if (l->proof) pn_buf_free(&l->proof->data);
    l->session = s;
    l->state = LINK_LIVE;
    pn_link_watch(l);
    pn_buf_drop(&l->in, (size_t)pn_packet_size(pn_buf_head(&l->in), pn_buf_len(&l->in)));
    pn_session_attach(s, &l->wire, env);
    pn_walks_wake(b, s);
    pn_drain(l);
    pn_mark_dirty(l);
    pn_settle(b);
    return true;
}

/* --- enhanced authentication (5.0 §4.12) --- */

/* Whether a packet names the method that this connection began with (MQTT-4.12.0-5, MQTT-4.12.1-1). */
static bool same_method(const pn_link *l, const pn_packet *p) {
    pn_prop method;
    return method_of(l).n && pn_prop_find(&p->props, PN_AUTHENTICATION_METHOD, &method) && pn_span_eq(method.value, method_of(l));
}

/* Hands the data of an AUTH to the driver. */
static uint8_t ask_proof(pn_link *l, const pn_packet *p) {
    pn_prop data;
    pn_buf *kept = &l->proof->data;
    pn_buf_drop(kept, pn_buf_len(kept));
    if (pn_prop_find(&p->props, PN_AUTHENTICATION_DATA, &data) && !pn_buf_add(kept, data.value.p, data.value.n)) {
        return PN_QUOTA_EXCEEDED;
    }
    pn_raise(l->broker, PN_EVENT_AUTH, l, p->reason, NULL, (pn_span){0});
    return PN_SUCCESS;
}

/* AUTH of a client that is in: it begins to authenticate anew, or goes on with that (5.0 §4.12.1). */
uint8_t pn_on_auth(pn_link *l, const pn_packet *p) {
    bool begins = p->reason == PN_REAUTHENTICATE;
    if (!same_method(l, p) || (begins ? l->proof->state != REAUTH_NONE : p->reason != PN_CONTINUE_AUTHENTICATION || l->proof->state != REAUTH_WAITING)) {
        return PN_PROTOCOL_ERROR;
    }
    l->proof->state = REAUTH_ASKING;
    return ask_proof(l, p);
}

/* Sends an AUTH with the connection's method. */
static void send_auth(pn_link *l, uint8_t reason, pn_span data) {
    pn_broker *b = l->broker;
    pn_packet p = {.type = PN_AUTH, .reason = reason, .props = pn_props_begin(b)};
    if (!pn_buf_room(&b->scratch, 16 + (size_t)method_of(l).n + data.n)) {
        pn_link_fail(l, PN_QUOTA_EXCEEDED);
        return;
    }
    pn_add_prop(b, &p.props, PN_AUTHENTICATION_METHOD, method_of(l), 0);
    if (data.n) pn_add_prop(b, &p.props, PN_AUTHENTICATION_DATA, data, 0);
    pn_wire_send(&l->wire, &p, &b->env);
}

/* The client's AUTH behind its CONNECT, when it is there: the only thing but a DISCONNECT that may come now (MQTT-3.1.2-30). */
void pn_prove(pn_link *l) {
    uint8_t *head = l->in.p + l->in.head;
    size_t held = pn_buf_len(&l->in), connect = (size_t)pn_packet_size(head, held);
    pn_packet p;
    int64_t used = pn_packet_decode(head + connect, held - connect, l->version, l->broker->env.limits.max_parked_bytes, &p);
    if (used == 0) return;
    if (used > 0 && p.type == PN_DISCONNECT) {
        pn_link_end(l, p.reason, false);
        return;
    }
    uint8_t reason = PN_PROTOCOL_ERROR;
    if (used < 0) {
        reason = (uint8_t)-used;
    } else if (p.type == PN_AUTH && p.reason == PN_CONTINUE_AUTHENTICATION && same_method(l, &p)) {
        l->state = LINK_ASKING;
        reason = ask_proof(l, &p);
        memmove(head + connect, head + connect + used, held - connect - (size_t)used);
        l->in.tail -= (uint32_t)used;
    }
    if (reason) {
        l->state = LINK_ASKING; /* so that it is answered with a CONNACK */
        pn_refuse(l, reason, (pn_span){0});
    }
}

bool pn_link_proof(const pn_link *l, pn_span *method, pn_span *data) {
    *method = method_of(l);
    *data = l->proof ? pn_span_of(pn_buf_head(&l->proof->data), pn_buf_len(&l->proof->data)) : (pn_span){0};
    return l->state == LINK_ASKING ? method->n != 0 : l->state == LINK_LIVE && l->proof && l->proof->state == REAUTH_ASKING;
}

bool pn_link_challenge(pn_link *l, pn_span data, int64_t now) {
    pn_enter(l->broker, now);
    pn_span method, proof;
    if (!pn_link_proof(l, &method, &proof)) return false;
    send_auth(l, PN_CONTINUE_AUTHENTICATION, data);
    if (l->state == LINK_LIVE) {
        l->proof->state = REAUTH_WAITING;
    } else if (l->state == LINK_ASKING) {
        l->state = LINK_PROVING;
        pn_prove(l);
    }
    pn_mark_dirty(l);
    pn_settle(l->broker);
    return true;
}

bool pn_link_authenticated(pn_link *l, pn_span data, int64_t now) {
    pn_enter(l->broker, now);
    if (l->state != LINK_LIVE || !l->proof || l->proof->state != REAUTH_ASKING) return false;
    l->proof->state = REAUTH_NONE;
    pn_buf_free(&l->proof->data);
    send_auth(l, PN_SUCCESS, data);
    pn_mark_dirty(l);
    pn_settle(l->broker);
    return true;
}
