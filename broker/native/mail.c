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

bool pn_mail_put(pn_mail *m, const void *item, size_t size) {
    pthread_mutex_lock(&m->mutex);
    bool first = pn_buf_len(&m->items) == 0;
    bool put = pn_buf_add(&m->items, item, size);
    pthread_mutex_unlock(&m->mutex);
    if (put && first) pn_mail_ring(m);
    return put;
}

pn_buf pn_mail_take(pn_mail *m) {
    uint64_t rung;
    ssize_t n = read(m->bell, &rung, sizeof rung); /* first: what is put in after this rings again */
    (void)n;
    pthread_mutex_lock(&m->mutex);
    pn_buf items = m->items;
    m->items = (pn_buf){0};
    pthread_mutex_unlock(&m->mutex);
    return items;
}

uint32_t pn_mail_bytes(pn_mail *m) {
    pthread_mutex_lock(&m->mutex);
    uint32_t n = pn_buf_len(&m->items);
    pthread_mutex_unlock(&m->mutex);
    return n;
}
