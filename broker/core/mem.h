/* mem.h: the only calls by which the core gets and returns memory, and how much it has.
 *
 * The rule it keeps: no state here but one number, the bytes that are out. It is the process's, as memory is, and for that the one
 * exception to the law that the core has no globals: counted here, nothing is forgotten, whoever holds it. The tests link another
 * mem.c whose n-th allocation fails. A NULL from these is an error that every caller must bring to an orderly end
 * (PN_QUOTA_EXCEEDED or PN_UNSPECIFIED_ERROR).
 */
#ifndef PEANUT_MEM_H
#define PEANUT_MEM_H

#include <stddef.h>

void *pn_malloc(size_t size);               /* owned by the caller; NULL when there is none */
void *pn_calloc(size_t count, size_t size); /* zeroed; NULL also when count * size overflows */
void *pn_realloc(void *old, size_t size);   /* on NULL `old` stays valid and owned */
void pn_free(void *ptr);                    /* NULL is fine */
/* For a table that is looked up at random: not zeroed, from the boundary of a cache line on; pn_free returns it. A large one asks the system for
 * huge pages, for else each look at it misses not only the caches, but also what the processor knows of the page tables. */
void *pn_table_new(size_t size);

/* Once, at the beginning, for the whole process: some megabytes that are free stay with it, and are not given to the system and asked for
 * again in every turn: output of many clients comes and goes together, and each page of it cost a fault (a third of a fan-out). */
void pn_mem_begin(void);

size_t pn_mem_held(void); /* bytes out, as the allocator rounds them */

#endif
