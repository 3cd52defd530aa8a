/* Threads that share a batch: each takes the next image when it is done with one.
 *
 * They start with the first batch and sleep between batches. The caller is one of them, so a pool of one starts none.
 */
#include "decode.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct worker {
    struct pool *pool;
    pthread_t thread;
    struct decoder *decoder; /* made and used by this thread alone */
};

struct pool {
    pthread_mutex_t lock; /* over all below but `next` */
    pthread_cond_t begin, end;
    unsigned long batch; /* counts */
    int threads, started, busy, stop;
    pool_work *work;
    void *context;
    int count;
    atomic_int next;
    pid_t process;
    struct worker workers[]; /* the caller first */
};

static void share(struct worker *worker)
{
    struct pool *pool = worker->pool;
    if (!worker->decoder)
        worker->decoder = decoder_new();
    for (int i; (i = atomic_fetch_add(&pool->next, 1)) < pool->count;)
        pool->work(pool->context, worker->decoder, i);
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
        share(worker);
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
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->end, NULL);
    pool->threads = threads;
    pool->started = 1;
    pool->process = getpid();
    for (int i = 0; i < threads; i++)
        pool->workers[i].pool = pool;
    return pool;
}

/* Start the threads that are missing, with all signals blocked: those are the interpreter's. */
static int start(struct pool *pool)
{
    sigset_t all, before;
    int error = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!error && pool->started < pool->threads) {
        struct worker *worker = pool->workers + pool->started;
        error = pthread_create(&worker->thread, NULL, worker_main, worker);
        pool->started += !error;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int pool_run(struct pool *pool, pool_work *work, void *context, int count)
{
    int error = pool->started < pool->threads ? start(pool) : 0;
    if (error)
        return error;
    pthread_mutex_lock(&pool->lock);
    pool->work = work;
    pool->context = context;
    pool->count = count;
    pool->busy = pool->threads - 1;
    atomic_store(&pool->next, 0);
    pool->batch++;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    share(pool->workers);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy > 0)
        pthread_cond_wait(&pool->end, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

void pool_free(struct pool *pool)
{
    if (pool->process != getpid())
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    for (int i = 0; i < pool->started; i++)
        decoder_free(pool->workers[i].decoder);
    pthread_cond_destroy(&pool->end);
    pthread_cond_destroy(&pool->begin);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
