/* What memory alone costs: power of two choices among 200 pods, a queue write, a queue read and a
 * histogram for each request. No pod, no clock. Prints ns of processor time a request. */
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PODS = 200, DEPTH = 256 };
static int64_t load[PODS];
static uint32_t queue[PODS][DEPTH], tail[PODS], histogram[4096];

static uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

int main(int count, char **arguments) {
    uint64_t requests = count > 1 ? strtoull(arguments[1], NULL, 10) : 50000000, total = 0;
    for (int pod = 0; pod < PODS; pod++) load[pod] = pod;
    double began = seconds();
    for (uint64_t i = 0; i < requests; i++) {
        uint64_t word = mixed((i + 1) * 0x9E3779B97F4A7C15u);
        int64_t one = load[(word & 0xFFFFFFFFu) * PODS >> 32], other = load[(word >> 32) * PODS >> 32];
        int64_t chosen = one < other ? one : other;
        uint64_t pod = chosen & 0xFFFF;
        load[pod] = chosen + 0x10000;
        uint32_t *entry = &queue[pod][tail[pod]++ % DEPTH];
        float latency = (float)((uint32_t)i - *entry + 1);
        uint32_t bits;
        *entry = (uint32_t)i;
        memcpy(&bits, &latency, sizeof bits);
        histogram[((bits >> 16) - 16256) & 4095]++;
    }
    double spent = seconds() - began;
    for (int bucket = 0; bucket < 4096; bucket++) total += histogram[bucket];
    printf("%.4f\n", total == requests ? 1e9 * spent / (double)requests : -1.0);
    return 0;
}
