/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of the CPU backend: the caller and threads-1 workers take the tasks of one op from a common counter.
 *
 * Which thread runs a task is left to chance; what a task computes is not (cpu.h). Between the ops of a forward pass
 * lie microseconds, so whoever waits first spins for a while and only then sleeps. One caller at a time. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cpu.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* About 100 us of pause instructions: longer than the serial code between two ops, far shorter than a step. */
#define FK_CPU_SPINS 2000

typedef struct {
  FkCpuPool *pool;
  int index;
} FkCpuWorker;

struct FkCpuPool {
  int threads, started;
  pthread_t *handles;
  FkCpuWorker *workers;
  float **scratch; /* [threads]; 0 is the caller's */
  size_t scratch_floats;

  /* The running op. It may change only while `pending` is 0. */
  FkCpuTask run;
  const void *op;
  uint32_t tasks;

  /* High half: number of the op; low half: tasks not yet taken. One word, so a late worker cannot take from the next op
   * with the knowledge of this one. */
  _Atomic uint64_t ticket;
  atomic_uint pending; /* tasks not yet finished */
  atomic_bool stop;

  pthread_mutex_t lock;
  pthread_cond_t work, done;
  atomic_int sleepers; /* workers in `work` */
  atomic_bool waiting; /* the caller in `done` */
};

static inline void pause_spin(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

/* Takes and runs tasks until none is left. */
static void take_tasks(FkCpuPool *pool, int index) {
  uint64_t ticket = atomic_load(&pool->ticket);
  while ((uint32_t)ticket > 0) {
    if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - 1)) continue;
    /* Holding a task keeps run, op and tasks as they are. */
    pool->run(pool->op, (int64_t)pool->tasks - (uint32_t)ticket, pool->scratch[index]);
    if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->waiting)) {
      pthread_mutex_lock(&pool->lock);
      pthread_cond_signal(&pool->done);
      pthread_mutex_unlock(&pool->lock);
    }
    ticket = atomic_load(&pool->ticket);
  }
}

/* Nothing to take, and nobody asks the workers to end. */
static bool is_idle(FkCpuPool *pool) {
  return (uint32_t)atomic_load(&pool->ticket) == 0 && !atomic_load(&pool->stop);
}

/* Spins, sleeps, works, until the pool is freed. */
static void *worker_main(void *data) {
  FkCpuWorker *worker = data;
  FkCpuPool *pool = worker->pool;
  while (!atomic_load(&pool->stop)) {
    for (int spin = 0; spin < FK_CPU_SPINS && is_idle(pool); spin++) pause_spin();
    if (is_idle(pool)) {
      pthread_mutex_lock(&pool->lock);
      atomic_fetch_add(&pool->sleepers, 1); /* before looking again: the caller looks at sleepers after the ticket */
      while (is_idle(pool)) pthread_cond_wait(&pool->work, &pool->lock);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->lock);
    }
    take_tasks(pool, worker->index);
  }
  return NULL;
}

static void wake_workers(FkCpuPool *pool) {
  if (atomic_load(&pool->sleepers) == 0) return;
  pthread_mutex_lock(&pool->lock);
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
}

/* The caller waits for tasks that workers still run. */
static void wait_for_tasks(FkCpuPool *pool) {
  for (int spin = 0; spin < FK_CPU_SPINS && atomic_load(&pool->pending) > 0; spin++) pause_spin();
  if (atomic_load(&pool->pending) == 0) return;
  pthread_mutex_lock(&pool->lock);
  atomic_store(&pool->waiting, true);
  while (atomic_load(&pool->pending) > 0) pthread_cond_wait(&pool->done, &pool->lock);
  atomic_store(&pool->waiting, false);
  pthread_mutex_unlock(&pool->lock);
}

/* Grows every thread's scratch; only ever while no op runs. */
static bool reserve_scratch(FkCpuPool *pool, size_t floats) {
  if (floats <= pool->scratch_floats) return true;
  pool->scratch_floats = 0;
  for (int i = 0; i < pool->threads; i++) {
    fk_cpu_block_free(pool->scratch[i]);
    pool->scratch[i] = fk_cpu_block(floats * sizeof(float));
    if (!pool->scratch[i]) return false;
  }
  pool->scratch_floats = floats;
  return true;
}

bool fk_cpu_pool_run(FkCpuPool *pool, int64_t tasks, size_t scratch_floats, FkCpuTask run, const void *op) {
  assert(tasks >= 0 && tasks < UINT32_MAX);
  if (!reserve_scratch(pool, scratch_floats)) return false;
  if (tasks <= 1 || pool->threads == 1) {
    for (int64_t task = 0; task < tasks; task++) run(op, task, pool->scratch[0]);
    return true;
  }
  pool->run = run;
  pool->op = op;
  pool->tasks = (uint32_t)tasks;
  atomic_store(&pool->pending, (unsigned)tasks);
  atomic_store(&pool->ticket, ((atomic_load(&pool->ticket) >> 32) + 1) << 32 | (uint64_t)tasks);
  wake_workers(pool);
  take_tasks(pool, 0);
  wait_for_tasks(pool);
  return true;
}

FkCpuPool *fk_cpu_pool_new(int threads, int *error) {
  FkCpuPool *pool = calloc(1, sizeof *pool);
  *error = ENOMEM;
  if (!pool) return NULL;
  pool->threads = threads;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->work, NULL);
  pthread_cond_init(&pool->done, NULL);
  pool->handles = calloc((size_t)threads, sizeof *pool->handles);
  pool->workers = calloc((size_t)threads, sizeof *pool->workers);
  pool->scratch = calloc((size_t)threads, sizeof *pool->scratch);
  if (pool->handles && pool->workers && pool->scratch) *error = 0;
  for (int i = 1; *error == 0 && i < threads; i++) {
    pool->workers[i] = (FkCpuWorker){pool, i};
    *error = pthread_create(&pool->handles[i], NULL, worker_main, &pool->workers[i]);
    pool->started += *error == 0;
  }
  if (*error == 0) return pool;
  fk_cpu_pool_free(pool);
  return NULL;
}

void fk_cpu_pool_free(FkCpuPool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, true);
  pthread_mutex_lock(&pool->lock);
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  for (int i = 1; i <= pool->started; i++) pthread_join(pool->handles[i], NULL);
  for (int i = 0; pool->scratch && i < pool->threads; i++) fk_cpu_block_free(pool->scratch[i]);
  pthread_cond_destroy(&pool->done);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->lock);
  free(pool->scratch);
  free(pool->workers);
  free(pool->handles);
  free(pool);
}
