/* decode.c -- times the packet decoder of broker/core alone, without Python around it: what the broker pays a packet.
 *
 * The rule it keeps: it does what the broker does with a chunk, decoding packet after packet, and nothing else.
 * Input on stdin: MQTT 5.0 packets back to back. Argument: for how many milliseconds to decode them again and again.
 * Output: nanoseconds a packet. Exit status 1: the stream does not decode.
 *
 * Build: cc -std=c11 -O2 -I ../../broker/core decode.c ../../broker/core/{packet,buf,mem}.c
 */
#define _POSIX_C_SOURCE 200809L

#include "packet.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { INPUT_MAX = 16 * 1024 * 1024, VERSION = 5, PACKET_SIZE_MAX = 268435460 };

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);  /* not the wall's: others may run in between */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
    static uint8_t data[INPUT_MAX];
    size_t size = fread(data, 1, sizeof data, stdin);
    uint64_t duration = argc > 1 ? strtoull(argv[1], NULL, 10) * 1000000u : 0;
    uint64_t packets = 0, checksum = 0, start = clock_ns(), elapsed;
    do {
        for (size_t at = 0; at < size;) {
            pn_packet packet;
            int64_t n = pn_packet_decode(data + at, size - at, VERSION, PACKET_SIZE_MAX, &packet);
            if (n <= 0) {
                fprintf(stderr, "decode: result %" PRId64 " at byte %zu\n", n, at);
                return 1;
            }
            at += (size_t)n;
            packets++;
            checksum += packet.type + packet.id;  /* so that the work is not optimised away */
        }
        elapsed = clock_ns() - start;
    } while (elapsed < duration && packets > 0);
    if (packets == 0) {
        fprintf(stderr, "decode: no input\n");
        return 1;
    }
    printf("%.3f\n", (double)elapsed / (double)packets);
    fprintf(stderr, "%" PRIu64 "\n", checksum);
    return 0;
}
