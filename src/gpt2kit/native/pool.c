/* A pool of threads that wait for work by spinning for a moment, and then asleep. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "kernel.h"

/* About half a millisecond, which is what choosing a token takes, and 20 microseconds. */
enum { SPINS_AWAKE = 30000, SPINS_BEFORE_YIELD = 1000 };

struct pool {
    int num_threads;
    pthread_t *threads;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    void (*work)(void *, int);
    void *argument;
    atomic_int round, unfinished, sleeping, stopping;
    atomic_int barrier_count, barrier_round;
    atomic_int next_thread;
};

static inline void pause_briefly(int spins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (spins % SPINS_BEFORE_YIELD == SPINS_BEFORE_YIELD - 1) sched_yield();
}

static void await_round(struct pool *pool, int round) {
    for (int spins = 0; spins < SPINS_AWAKE; spins++) {
        if (atomic_load(&pool->round) != round) return;
        pause_briefly(spins);
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    while (atomic_load(&pool->round) == round) pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *thread_main(void *argument) {
    struct pool *pool = argument;
    int thread = atomic_fetch_add(&pool->next_thread, 1);
    for (int round = 0;; round++) {
        await_round(pool, round);
        if (atomic_load(&pool->stopping)) return NULL;
        pool->work(pool->argument, thread);
        atomic_fetch_sub(&pool->unfinished, 1);
    }
}

static void begin_round(struct pool *pool) {
    atomic_fetch_add(&pool->round, 1);
    /* A thread counts itself as sleeping before it looks at the round for the last time. */
    if (atomic_load(&pool->sleeping) == 0) return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

struct pool *gk_pool_new(int num_threads) {
    struct pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return NULL;
    pool->threads = calloc((size_t)num_threads, sizeof *pool->threads);
    if (pool->threads == NULL) {
        free(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    atomic_store(&pool->next_thread, 1);
    pool->num_threads = 1; /* the caller is thread 0 */
    while (pool->num_threads < num_threads &&
           pthread_create(&pool->threads[pool->num_threads], NULL, thread_main, pool) == 0)
        pool->num_threads++;
    return pool;
}

void gk_pool_free(struct pool *pool) {
    atomic_store(&pool->stopping, 1);
    begin_round(pool);
    for (int thread = 1; thread < pool->num_threads; thread++) pthread_join(pool->threads[thread], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->threads);
    free(pool);
}

int pool_size(const struct pool *pool) { return pool->num_threads; }

void pool_run(struct pool *pool, void (*work)(void *, int), void *argument) {
    pool->work = work;
    pool->argument = argument;
    atomic_store(&pool->unfinished, pool->num_threads - 1);
    begin_round(pool);
    work(argument, 0);
    for (int spins = 0; atomic_load(&pool->unfinished) > 0; spins++) pause_briefly(spins);
}

void pool_barrier(struct pool *pool) {
    int round = atomic_load(&pool->barrier_round);
    if (atomic_fetch_add(&pool->barrier_count, 1) == pool->num_threads - 1) {
        atomic_store(&pool->barrier_count, 0);
        atomic_store(&pool->barrier_round, round + 1);
        return;
    }
    for (int spins = 0; atomic_load(&pool->barrier_round) == round; spins++) pause_briefly(spins);
}
