/* mem.c: the C library's allocator behind mem.h, counted. */
#define _DEFAULT_SOURCE /* madvise */
#include "mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

static atomic_size_t held; /* relaxed: a sum, that orders nothing */

void pn_mem_begin(void) {
    enum { KEPT = 8 << 20, OF_ITS_OWN = 1 << 20, SMALL = 20 * sizeof(void *) };
    mallopt(M_MXFAST, SMALL); /* the most there is: a message of some hundred bytes goes and comes without its neighbours being looked at */
    mallopt(M_TRIM_THRESHOLD, KEPT);
    mallopt(M_MMAP_THRESHOLD, OF_ITS_OWN);
}

static void *took(void *p) {
    if (p) atomic_fetch_add_explicit(&held, malloc_usable_size(p), memory_order_relaxed);
    return p;
}

void *pn_malloc(size_t size) { return took(malloc(size)); }

void *pn_calloc(size_t count, size_t size) { return took(calloc(count, size)); }

void *pn_realloc(void *old, size_t size) {
    size_t before = old ? malloc_usable_size(old) : 0;
    void *p = realloc(old, size);
    if (p) atomic_fetch_sub_explicit(&held, before, memory_order_relaxed);
    return took(p);
}

void *pn_table_new(size_t size) {
    enum { LINE = 64, HUGE_PAGE = 2 << 20 };
    bool large = size >= HUGE_PAGE;
    size_t align = large ? HUGE_PAGE : LINE;
    if (size > SIZE_MAX - align) return NULL;
    size = (size + align - 1) / align * align;
    void *p = took(aligned_alloc(align, size));
#ifdef MADV_HUGEPAGE
    if (p && large) (void)madvise(p, size, MADV_HUGEPAGE); /* where there are none, it is a table all the same */
#endif
    return p;
}

void pn_free(void *ptr) {
    if (ptr) atomic_fetch_sub_explicit(&held, malloc_usable_size(ptr), memory_order_relaxed);
    free(ptr);
}

size_t pn_mem_held(void) { return atomic_load_explicit(&held, memory_order_relaxed); }
