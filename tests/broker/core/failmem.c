/* failmem.c: the work of failmem.h, and of core/mem.h in the tests. The state is static: the tests have one thread. */
#include "failmem.h"

#include <malloc.h>
#include <stdlib.h>

#include "mem.h"

static long calls, live, fail_at = -1;
static size_t held;
static bool failed, for_good;

static void arm(long at, bool lasting) {
    calls = 0;
    failed = false;
    fail_at = at;
    for_good = lasting;
}

void failmem_after(long n) { arm(n, false); }
void failmem_all_after(long n) { arm(n, true); }
void failmem_never(void) { arm(-1, false); }
bool failmem_failed(void) { return failed; }
long failmem_calls(void) { return calls; }
long failmem_live(void) { return live; }
size_t pn_mem_held(void) { return held; }

static bool refuse(void) {
    long at = calls++;
    bool no = fail_at >= 0 && (at == fail_at || (for_good && at > fail_at));
    failed = failed || no;
    return no;
}

static void *count(void *p) {
    if (p) live++, held += malloc_usable_size(p);
    return p;
}

void *pn_malloc(size_t size) { return refuse() ? NULL : count(malloc(size)); }

void *pn_calloc(size_t items, size_t size) { return refuse() ? NULL : count(calloc(items, size)); }

void *pn_realloc(void *old, size_t size) {
    if (refuse()) return NULL;
    size_t before = old ? malloc_usable_size(old) : 0;
    void *p = realloc(old, size);
    if (p) held -= before;
    if (p && old) live--;
    return count(p);
}

void *pn_table_new(size_t size) {
    enum { LINE = 64 };
    return refuse() ? NULL : count(aligned_alloc(LINE, (size + LINE - 1) / LINE * LINE));
}

void pn_free(void *p) {
    if (p) live--, held -= malloc_usable_size(p);
    free(p);
}
