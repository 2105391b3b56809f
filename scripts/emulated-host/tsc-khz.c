// Prints the frequency of this machine's time-stamp counter, in kHz: the median of five measurements, because one that
// was interrupted between its two readings is too high or too low.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int ascending(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;

    return (difference > 0) - (difference < 0);
}

int main(void)
{
    double khz[5];

    for (int i = 0; i < 5; i++) {
        double start = seconds(), now;
        unsigned long long ticks = __rdtsc();

        while ((now = seconds()) - start < 0.2)
            ;
        khz[i] = (__rdtsc() - ticks) / (now - start) / 1e3;
    }
    qsort(khz, 5, sizeof khz[0], ascending);
    printf("%.0f\n", khz[2]);
    return 0;
}
