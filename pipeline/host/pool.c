/* Threads that share a batch: each takes the next image when it is done with one.
 *
 * They start with the first batch and sleep between batches. The caller is one of them, so a pool of one has none. One
 * batch runs at a time; who comes meanwhile, waits.
 */
#include "decode.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

struct worker {
    struct pool *pool;
    pthread_t thread;
    int number;
};

struct pool {
    pthread_mutex_t turn; /* of the caller whose batch runs */
    pthread_mutex_t lock; /* over all below but `next` */
    pthread_cond_t begin, end;
    unsigned long batch;
    int threads, started, busy, stop;
    pool_work *work;
    void *context;
    int count;
    atomic_int next;
    struct worker workers[];
};

static void share(struct pool *pool, int thread)
{
    for (int i; (i = atomic_fetch_add(&pool->next, 1)) < pool->count;)
        pool->work(pool->context, thread, i);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    unsigned long done = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->batch == done && !pool->stop)
            pthread_cond_wait(&pool->begin, &pool->lock);
        if (pool->stop)
            break;
        done = pool->batch;
        pthread_mutex_unlock(&pool->lock);
        share(pool, worker->number);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->end);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

struct pool *pool_new(int threads)
{
    struct pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof(struct worker));
    if (!pool)
        return NULL;
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->end, NULL);
    pool->threads = threads;
    return pool;
}

/* Start what is missing, with all signals blocked: they are the interpreter's. */
static int start(struct pool *pool)
{
    sigset_t all, before;
    int error = 0;
    if (pool->started == pool->threads - 1)
        return 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!error && pool->started < pool->threads - 1) {
        struct worker *worker = pool->workers + pool->started;
        *worker = (struct worker){.pool = pool, .number = pool->started + 1};
        error = pthread_create(&worker->thread, NULL, worker_main, worker);
        pool->started += !error;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int pool_run(struct pool *pool, pool_work *work, void *context, int count)
{
    pthread_mutex_lock(&pool->turn);
    int error = start(pool);
    if (!error) {
        pthread_mutex_lock(&pool->lock);
        pool->work = work;
        pool->context = context;
        pool->count = count;
        pool->busy = pool->started;
        atomic_store(&pool->next, 0);
        pool->batch++;
        pthread_cond_broadcast(&pool->begin);
        pthread_mutex_unlock(&pool->lock);
        share(pool, 0);
        pthread_mutex_lock(&pool->lock);
        while (pool->busy > 0)
            pthread_cond_wait(&pool->end, &pool->lock);
        pthread_mutex_unlock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->turn);
    return error;
}

void pool_free(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->end);
    pthread_cond_destroy(&pool->begin);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->turn);
    free(pool);
}
