/* mem.c: the C library's allocator behind mem.h. */
#include "mem.h"

#include <stdlib.h>

void *pn_malloc(size_t size) { return malloc(size); }

void *pn_calloc(size_t count, size_t size) { return calloc(count, size); }

void *pn_realloc(void *old, size_t size) { return realloc(old, size); }

void pn_free(void *ptr) { free(ptr); }
