/* failmem.h: the allocator of the C tests: mem.h whose n-th allocation fails, with counters.
 *
 * The rule it keeps: it links in place of core/mem.c and behaves like it until failmem_after is called. So a test can
 * fail each allocation of a scenario in turn and prove that every one is survived and nothing leaks:
 *
 *     for (long n = 0;; n++) {
 *         failmem_after(n);
 *         scenario();
 *         CHECK_EQ(failmem_live(), 0);
 *         if (!failmem_failed()) break;     // n was more than the scenario asks for: all were tried
 *     }
 *     failmem_never();
 */
#ifndef PEANUT_FAILMEM_H
#define PEANUT_FAILMEM_H

#include <stdbool.h>

/* The next `n` allocations succeed, the one after them fails, those behind it succeed again. Resets failmem_failed. */
void failmem_after(long n);

/* The next `n` allocations succeed and every later one fails, as on a machine that has run out. */
void failmem_all_after(long n);

/* No allocation fails any more; resets failmem_failed too. */
void failmem_never(void);

bool failmem_failed(void); /* whether an allocation was refused since the last of the three calls above */
long failmem_calls(void);  /* allocations asked for since the last of them, refused ones included */
long failmem_live(void);   /* blocks allocated and not yet freed, since the program began */

#endif
