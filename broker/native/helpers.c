/* helpers.c: the work of helpers.h. */
#define _GNU_SOURCE
#include "helpers.h"

#include <pthread.h>
#include <signal.h>

#include "mem.h"

struct pn_helpers {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pn_step *first, *last; /* that wait */
    bool ending;
    pn_step_done done;
    void *arg;
    unsigned count;
    pthread_t threads[PN_HELPERS_MAX];
};

void pn_step_free(pn_step *s) {
    if (!s) return;
    SSL_free(s->ssl);
    SSL_CTX_free(s->context);
    pn_buf_free(&s->in);
    pn_buf_free(&s->out);
    pn_free(s);
}

static void take(pn_step *s, pn_tls_pipe *pipe) {
    s->result = PN_TLS_FAILED;
    if (s->ssl) pn_tls_bind(s->ssl, pipe);
    else s->ssl = pn_tls_session(s->context, pipe);
    SSL_CTX_free(s->context);
    s->context = NULL;
    if (!s->ssl) return;
    pipe->in = pn_buf_head(&s->in);
    pipe->in_n = pn_buf_len(&s->in);
    s->result = pn_tls_handshake(s->ssl, &s->failure);
    pn_buf_drop(&s->in, pn_buf_len(&s->in) - pipe->in_n);
    if (pipe->full) s->result = PN_TLS_FAILED;
    s->out = pipe->out;
    pipe->out = (pn_buf){0};
    pipe->in_n = 0;
    pipe->full = false;
    pn_tls_bind(s->ssl, NULL);
}

static void *help(void *arg) {
    pn_helpers *h = arg;
    pn_tls_pipe pipe;
    bool able = pn_tls_pipe_init(&pipe); /* without memory every step fails, as it would in the loop */
    pthread_mutex_lock(&h->mutex);
    while (!h->ending) {
        pn_step *s = h->first;
        if (!s) {
            pthread_cond_wait(&h->work, &h->mutex);
            continue;
        }
        h->first = s->next;
        if (!h->first) h->last = NULL;
        pthread_mutex_unlock(&h->mutex);
        if (able) take(s, &pipe);
        else s->result = PN_TLS_FAILED;
        h->done(h->arg, s);
        pthread_mutex_lock(&h->mutex);
    }
    pthread_mutex_unlock(&h->mutex);
    if (able) pn_tls_pipe_end(&pipe);
    return NULL;
}

pn_helpers *pn_helpers_new(unsigned count, pn_step_done done, void *arg) {
    sigset_t all, before;
    pn_helpers *h = pn_calloc(1, sizeof *h);
    if (!h) return NULL;
    h->done = done;
    h->arg = arg;
    pthread_mutex_init(&h->mutex, NULL);
    pthread_cond_init(&h->work, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of Python */
    while (h->count < count && h->count < PN_HELPERS_MAX && pthread_create(&h->threads[h->count], NULL, help, h) == 0) {
        pthread_setname_np(h->threads[h->count++], "peanut-hands");
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (h->count) return h;
    pn_helpers_free(h);
    return NULL;
}

void pn_helpers_free(pn_helpers *h) {
    if (!h) return;
    pthread_mutex_lock(&h->mutex);
    h->ending = true;
    pthread_cond_broadcast(&h->work);
    pthread_mutex_unlock(&h->mutex);
    for (unsigned i = 0; i < h->count; i++) pthread_join(h->threads[i], NULL);
    for (pn_step *s = h->first, *next; s; s = next) {
        next = s->next;
        pn_step_free(s);
    }
    pthread_cond_destroy(&h->work);
    pthread_mutex_destroy(&h->mutex);
    pn_free(h);
}

void pn_helpers_give(pn_helpers *h, pn_step *s) {
    s->next = NULL;
    pthread_mutex_lock(&h->mutex);
    *(h->last ? &h->last->next : &h->first) = s;
    h->last = s;
    pthread_cond_signal(&h->work);
    pthread_mutex_unlock(&h->mutex);
}
