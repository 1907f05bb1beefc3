/* Memory from the edge of a cache line on. */
#ifndef PUNA_ROOM_H
#define PUNA_ROOM_H

#include <stdint.h>
#include <stdlib.h>
#if defined(_WIN32)
#include <malloc.h>
#endif

/* NULL if there is none. Given back with `give_back` alone. */
static inline void *room(int64_t bytes) {
#if defined(_WIN32)
    return _aligned_malloc((size_t)bytes + 64, 64);
#else
    void *p = NULL;
    return posix_memalign(&p, 64, (size_t)bytes + 64) ? NULL : p;
#endif
}

static inline void give_back(void *p) {
#if defined(_WIN32)
    _aligned_free(p);
#else
    free(p);
#endif
}

#endif
