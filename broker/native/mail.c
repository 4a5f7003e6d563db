/* mail.c: the work of mail.h. */
#include "mail.h"

#include <sys/eventfd.h>
#include <unistd.h>

bool pn_mail_init(pn_mail *m) {
    *m = (pn_mail){.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    pthread_mutex_init(&m->mutex, NULL);
    return m->bell >= 0;
}

void pn_mail_end(pn_mail *m) {
    if (m->bell >= 0) close(m->bell);
    pn_buf_free(&m->items);
    pthread_mutex_destroy(&m->mutex);
}

void pn_mail_ring(pn_mail *m) {
    uint64_t one = 1;
    ssize_t n = write(m->bell, &one, sizeof one);
    (void)n; /* it cannot fail but by being rung 2^64 times already */
}

static bool put(pn_mail *m, const void *item, size_t size, bool rings) {
    pthread_mutex_lock(&m->mutex);
    bool added = pn_buf_add(&m->items, item, size);
    rings = rings && added && !m->rung;
    m->rung |= rings;
    pthread_mutex_unlock(&m->mutex);
    if (rings) pn_mail_ring(m);
    return added;
}

bool pn_mail_put(pn_mail *m, const void *item, size_t size) { return put(m, item, size, true); }

bool pn_mail_leave(pn_mail *m, const void *item, size_t size) { return put(m, item, size, false); }

pn_buf pn_mail_take(pn_mail *m) {
    uint64_t rung;
    ssize_t n = read(m->bell, &rung, sizeof rung); /* first: what is put in after this rings again */
    (void)n;
    pthread_mutex_lock(&m->mutex);
    pn_buf items = m->items;
    m->items = (pn_buf){0};
    m->rung = false;
    pthread_mutex_unlock(&m->mutex);
    return items;
}

uint32_t pn_mail_bytes(pn_mail *m) {
    pthread_mutex_lock(&m->mutex);
    uint32_t n = pn_buf_len(&m->items);
    pthread_mutex_unlock(&m->mutex);
    return n;
}
