/* records.h: what of the broker must survive a crash, and how it looks as records (journal.h).
 *
 *   message       number                   → what is delivered; once, however many sessions wait for it
 *   session       session                  → who, until when, the will; also of a session that ends with its connection, for its will
 *   sent          session                  → how much of its queue has been sent, and so has its identifiers
 *   subscription  session, filter          → options
 *   received      session, identifier      → QoS 2 from the client, not yet released
 *   queued        session, place           → QoS 1 or 2 for the client: which message, or that it is released
 *   retained      topic                    → the message
 *
 * The rule it keeps: with no journal each of these calls is one comparison. Times are kept by the wall clock. What a `bool` says is
 * whether there was memory; deletions do not fail (journal.h counts what they could not say).
 */
#ifndef PEANUT_RECORDS_H
#define PEANUT_RECORDS_H

#include "journal.h"
#include "session.h"

/* The journal, when there is something to be written to it. */
static inline pn_journal *pn_recording(const pn_env *env) { return env->journal && !env->journal->silent ? env->journal : NULL; }

/* Grows with every record: has this packet changed anything that is kept? */
static inline uint64_t pn_changes(const pn_env *env) { return env->journal ? env->journal->changes : 0; }

/* Whether what is to be kept must be refused because the disk does not keep it: it takes nothing, or too much waits for it. */
bool pn_cannot_keep(const pn_env *env);

/* A session as it is now, which lets it begin to be kept. forget: it, what it has received and what is queued; its messages go with their
 * last reference (message.c), its subscriptions one by one (subs.c), before it. */
bool pn_record_session(pn_session *s, bool online, pn_env *env);
void pn_forget_session(pn_session *s, pn_env *env);

/* The parts of a session that is kept (s->whole). */
bool pn_record_sent(const pn_session *s, pn_env *env);
bool pn_record_queued(pn_session *s, uint64_t place, const pn_out *out, bool fresh, pn_env *env);
void pn_forget_queued(const pn_session *s, uint64_t place, pn_env *env);
bool pn_record_received(const pn_session *s, uint16_t id, pn_env *env);
void pn_forget_received(const pn_session *s, uint16_t id, pn_env *env);
bool pn_record_subscription(const pn_session *s, pn_span filter, uint8_t options, uint32_t id, uint64_t group, bool fresh, pn_env *env);
void pn_forget_subscription(const pn_session *s, pn_span filter, pn_env *env);

/* The record of a message that is about to go. */
void pn_forget_message(const pn_message *m);

/* Retained messages. The gateway's numbers are not worth it: they are published anew. */
bool pn_topic_is_kept(pn_span topic);
bool pn_record_retained(const pn_message *m, bool fresh, pn_env *env);
void pn_forget_retained(const pn_message *m, pn_env *env);

/* Whether a value is what was written under its key; then it is what is behind the checksum. */
bool pn_unseal(pn_span key, pn_span *value);

/* The value of a session's record and of a message's, unsealed, read. False when it is none. */
typedef struct pn_session_record {
    uint8_t version, rules;
    bool online, whole, has_will;
    uint32_t expiry, will_delay;
    int64_t ends_at, will_at, proved_until, will_lifetime; /* milliseconds of the broker's clock, or PN_NEVER */
    pn_span key, identity;
    pn_pub will;
} pn_session_record;
bool pn_read_session(pn_span value, int64_t wall, pn_session_record *out);
bool pn_read_message(pn_span value, int64_t wall, pn_pub *out);

#endif
