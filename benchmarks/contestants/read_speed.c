/* How fast this machine reads memory: every thread adds up its own part of a buffer much larger than the caches.
 *
 *     cc -O3 -march=native -fopenmp read_speed.c -o read_speed && ./read_speed MEBIBYTES REPEATS
 *
 * Prints the best rate in bytes per second. The sum is printed too, so that the compiler cannot leave the reading out.
 */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words) {
    size_t length = (count > 1 ? strtoull(words[1], NULL, 10) : 1024) * (1 << 20) / sizeof(uint64_t);
    int repeats = count > 2 ? atoi(words[2]) : 5;
    uint64_t *numbers = malloc(length * sizeof *numbers), sum = 0;
    double best = 0;
    if (numbers == NULL) return 1;
#pragma omp parallel for schedule(static) /* each thread touches first what it reads later */
    for (size_t i = 0; i < length; i++) numbers[i] = i;
    for (int repeat = 0; repeat < repeats; repeat++) {
        double started = omp_get_wtime();
#pragma omp parallel for simd schedule(static) reduction(+ : sum)
        for (size_t i = 0; i < length; i++) sum += numbers[i];
        double rate = (double)(length * sizeof *numbers) / (omp_get_wtime() - started);
        if (rate > best) best = rate;
    }
    printf("%.0f %llu\n", best, (unsigned long long)sum);
    free(numbers);
    return 0;
}
