/* loops.h: all native loops of a house, for everybody who is none of them.
 *
 * The rule it keeps: whoever talks to the loops need not know how many there are. A newcomer goes to the next one in turn and stays there; its
 * name says which, so an order finds its way, and nobody ever follows a pointer to a connection of another loop. There is one core, and one queue of posts:
 *
 *     pn_loops_order         any thread: what is to be done with a connection; its loop does it in its next turn
 *     pn_loops_posts         any thread: what has happened, in all of them; pn_loops_bell is readable while there is anything
 */
#ifndef PEANUT_LOOPS_H
#define PEANUT_LOOPS_H

#include "loop.h"

/* Owned; NULL without memory or file descriptors. */
pn_loops *pn_loops_new(pn_house *house, const pn_loop_times *times, unsigned count);
void pn_loops_free(pn_loops *loops, void (*give)(void *object)); /* after the threads have ended; gives every object back */
/* Has up to so many threads take the steps of handshakes (helpers.h). Before the first turn; false: there is none, and the loops take them. */
bool pn_loops_help(pn_loops *loops, unsigned threads);
bool pn_loops_start(pn_loops *loops); /* a thread for each, which turns until: */
void pn_loops_stop(pn_loops *loops);  /* ends the threads and waits for them; none is no harm */

/* One turn of each, for those without threads: waits `timeout` milliseconds at the most, -1 for ever; with more than one loop, 1 at the most. */
void pn_loops_turn(pn_loops *loops, int timeout);

void pn_loops_set_times(pn_loops *loops, const pn_loop_times *times);
int pn_loops_bell(const pn_loops *loops); /* borrowed: a file descriptor that is readable while there are posts */

/* A socket, not blocking, which is a loop's from now on. `object` comes with its posts. `link`: plain MQTT; NULL: TLS. Its
 * name, or 0 without memory, and then nothing has happened. */
uint64_t pn_loops_add(pn_loops *loops, int fd, void *object, pn_link *link);
/* The same for TLS that waits less. `context`: the handshake may begin as soon as a ClientHello does (a reference goes over); NULL: BEGIN
 * says so. `owner`: of the link that is opened when a handshake of TLS 1.3 is done, when there is nothing left to be kept back; borrowed
 * until POST_GONE is read. With TLS 1.2 ATTACH brings a link, and lets the last message of the handshake go. */
uint64_t pn_loops_welcome(pn_loops *loops, int fd, void *object, SSL_CTX *context, pn_owner *owner);
/* `thing` is the SSL_CTX of BEGIN (a reference goes over), the pn_link of ATTACH, anything for READ. False without memory. */
bool pn_loops_order(pn_loops *loops, uint8_t kind, uint64_t conn, void *thing);

/* With the lock: the loops, a bit each, whose links have output, or for whom there is long work. To be woken by pn_loops_wake, which any thread may. */
uint32_t pn_loops_due(const pn_loops *loops);
void pn_loops_wake(pn_loops *loops, uint32_t which);

/* All posts that wait; owned (pn_free, and the texts). Between this and the next call of pn_loops_forget owners are alive. */
pn_post *pn_loops_posts(pn_loops *loops, uint32_t *count);
/* The owner of a link is about to go: no post names it any more. */
void pn_loops_forget(pn_loops *loops, const pn_owner *owner);

/* Connections of now, the turns that were made, receives and sends so far: of all, or of the n-th. */
pn_loop_counts pn_loops_count(pn_loops *loops);
pn_loop_counts pn_loops_count_of(pn_loops *loops, unsigned n);

#endif
