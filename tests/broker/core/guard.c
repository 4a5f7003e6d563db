/* guard.c: the work of guard.h, with mmap and mprotect. */
#define _DEFAULT_SOURCE
#include "guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

guard guard_new(size_t room) {
    guard g = {0};
    g.page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (room + g.page - 1) / g.page * g.page;
    if (inner == 0) inner = g.page;
    g.mapped = inner + 2 * g.page;
    void *map = mmap(NULL, g.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect((uint8_t *)map + g.page, inner, PROT_READ | PROT_WRITE) != 0) {
        perror("guard_new");
        exit(2);
    }
    g.map = map;
    return g;
}

void guard_free(guard *g) {
    if (g->map) (void)munmap(g->map, g->mapped);
    *g = (guard){0};
}

static uint8_t *fill(guard *g, uint8_t *at, const void *data, size_t n) {
    if (n > g->mapped - 2 * g->page) {
        fprintf(stderr, "guard: %zu bytes asked of room for %zu\n", n, g->mapped - 2 * g->page);
        exit(2);
    }
    if (n && data) memcpy(at, data, n);
    if (n && !data) memset(at, 0xA5, n);
    return at;
}

uint8_t *guard_at_end(guard *g, const void *data, size_t n) { return fill(g, g->map + g->mapped - g->page - n, data, n); }

uint8_t *guard_at_start(guard *g, const void *data, size_t n) { return fill(g, g->map + g->page, data, n); }
