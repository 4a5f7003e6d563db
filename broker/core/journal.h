/* journal.h: what must survive a crash, as records on their way to the disk.
 *
 * The rule it keeps: a record is a key and a value, and the newest value of a key counts; so whoever keeps them needs to
 * know nothing of MQTT. Records gather in a batch. The driver takes it (pn_journal_taken), writes all of it or nothing, and
 * says so (pn_broker_committed): what was taken first is committed first. Within one batch a key stands once: what is put and
 * deleted again between two commits costs the disk nothing.
 *
 * A batch is a row of records: 'P' (put), 'D' (delete) or '-' (nothing any more), five digits with the length of the key, nine with the
 * length of the value, the key, the value. Digits, because SQL can read those (peanutd/store.py). A 'D' with a value deletes a run: all keys
 * from its key to its value, both with it. Messages and queues are numbered upwards and go mostly in that order, so that a backlog that is
 * worked off costs the disk a few records and not two for each message.
 */
#ifndef PEANUT_JOURNAL_H
#define PEANUT_JOURNAL_H

#include "buf.h"

/* The first byte of a key, in the order in which restoring needs them (records.h). */
enum pn_record {
    PN_RECORD_MESSAGE = 1, PN_RECORD_SESSION, PN_RECORD_SENT, PN_RECORD_SUBSCRIPTION, PN_RECORD_RECEIVED, PN_RECORD_QUEUED,
    PN_RECORD_RETAINED
};

enum { PN_RECORD_KINDS = PN_RECORD_RETAINED + 1 };

#define PN_RECORD_HEADER 15u
#define PN_RECORD_KEY_HEAD 17u

/* A key in two parts: a head of numbers, and a topic or nothing. */
typedef struct pn_key {
    uint8_t head[PN_RECORD_KEY_HEAD], n;
    pn_span rest; /* borrowed */
} pn_key;

typedef struct pn_journal {
    bool waits;   /* acknowledgements wait for the disk */
    bool fails;   /* the disk keeps nothing at present */
    bool silent;  /* nothing is recorded: the records are being restored, or the broker is being freed */
    int64_t wall; /* milliseconds: the wall clock less the broker's, for times that outlive it */
    uint64_t pending, committed; /* numbers of the batch that records go to, and of the last one on the disk */
    uint64_t changes;            /* records so far: has a packet changed anything? */
    uint64_t lost;               /* deletions for which there was no memory: after a crash, what they were to delete is there again */
    uint64_t sessions, messages; /* the last numbers given */
    struct pn_hold *held;        /* outputs that wait for a commit (session.h) */
    uint64_t seed;
    pn_buf batch;
    uint32_t *table; /* owned: hash table of places in the batch plus 1, by key */
    uint32_t table_cap, table_count;
    uint32_t runs[PN_RECORD_KINDS]; /* by kind: the place of the latest 'D' in the batch that is a run, plus 1 */
} pn_journal;

pn_journal *pn_journal_new(uint64_t seed); /* owned; NULL without memory */
void pn_journal_free(pn_journal *j);       /* NULL is fine */

/* Room for the value of `key`, to be filled at once: `n` bytes, or NULL without memory, and then nothing has changed. `fresh`: the key has
 * no value so far. */
uint8_t *pn_journal_put(pn_journal *j, const pn_key *key, uint32_t n, bool fresh);
/* The key has no value any more; that of a message or of a queue's entry never has one again. A fresh one that has not been taken yet vanishes. */
void pn_journal_delete(pn_journal *j, const pn_key *key);

/* The batch as it is, borrowed until the next call; false when there is nothing. taken: it is the driver's now, and a new one begins; returns
 * its number. */
bool pn_journal_batch(pn_journal *j, pn_span *batch);
uint64_t pn_journal_taken(pn_journal *j);

/* The batch after whose commit everything recorded so far is on the disk. */
static inline uint64_t pn_journal_latest(const pn_journal *j) { return pn_buf_len(&j->batch) ? j->pending : j->pending - 1; }

/* Bytes that wait to be taken. */
static inline uint32_t pn_journal_backlog(const pn_journal *j) { return pn_buf_len(&j->batch); }

#endif
