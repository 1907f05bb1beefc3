/* A team of threads that share out the units of one phase after another.
 *
 * A phase ends when its units are done, not when all threads have come: a thread that the system has put aside holds up
 * nobody unless it holds a unit. When it comes back it finds its phase over, passes the rest with empty hands, and joins
 * where the others are. Beside a busy neighbour a plain barrier costs a time slice of it at each of some 150 phases.
 */
#ifndef PUNA_THREADS_H
#define PUNA_THREADS_H

#include <stdint.h>

typedef struct Team Team;

typedef struct { /* where one thread is in the work */
    Team *team;
    int me;
    uint32_t phase;
    int mine; /* units of this phase that it has taken */
} Turn;

/* Runs in every thread with a copy of `context`: what it points to may only be looked at while holding a unit. */
typedef void Work(void *context, Turn *turn);

/* NULL if there is no memory or thread for it. */
Team *team_create(int threads);
void team_destroy(Team *team);
int team_threads(const Team *team);

/* Returns when all phases are done. `units` is the first phase's number of them, at least 1; `size` at most
 * TEAM_CONTEXT bytes of `context` are copied. */
enum { TEAM_CONTEXT = 256 };
void team_run(Team *team, Work *work, const void *context, int size, int units);

/* Up to `chunk` of this phase's units: of the own share while there are any (one stream of memory), then of another's. */
int take(Turn *turn, int chunk, int *from, int *to);

/* The units of this phase that can be had are gone. On to the next one, of `units` units (at least 1, at most
 * MOST_UNITS). */
enum { UNIT_BITS = 20, MOST_UNITS = (1 << UNIT_BITS) - 1 };
void meet(Turn *turn, int units);

/* The same where the next phase depends on this one: 1 for the one thread that ended it, which alone then calls
 * `begin`; everybody else is past this phase when it returns 0. */
int ended(Turn *turn);
void begin(Turn *turn, int units);

/* Whether this phase is still under way: 0 tells a late thread that what it would read is no longer its own. */
int under_way(const Turn *turn);

/* After the last phase. */
void leave(Turn *turn);

#endif
