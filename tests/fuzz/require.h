/* require.h: what must hold in a fuzz target, whatever its input is.
 *
 * The rule it keeps: what does not hold is said, and ends the program, so that libFuzzer keeps the input.
 */
#ifndef PEANUT_FUZZ_REQUIRE_H
#define PEANUT_FUZZ_REQUIRE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "buf.h"
#include "packet.h"

static inline void require(bool ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

/* Takes the whole packets off what a client has been sent. version 0: it was refused before anybody was asked which it speaks. */
static inline void require_packets(pn_buf *sent, uint8_t version) {
    for (;;) {
        pn_packet packet;
        const uint8_t *at = pn_buf_head(sent);
        uint32_t size = pn_buf_len(sent);
        int64_t n = pn_packet_decode(at, size, version ? version : PN_V311, PN_PACKET_SIZE_MAX, &packet);
        if (n < 0 && !version) n = pn_packet_decode(at, size, PN_V5, PN_PACKET_SIZE_MAX, &packet);
        require(n >= 0, "a client gets what no codec takes");
        if (n == 0) return;
        pn_buf_drop(sent, (size_t)n);
    }
}

#endif
