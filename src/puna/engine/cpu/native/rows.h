/* Memory for rows of activations. */
#ifndef PUNA_ROWS_H
#define PUNA_ROWS_H

#include "layout.h"
#include "room.h"

/* Room for `rows` of k numbers, in the forms that are asked for. 0 if there is no memory. */
static inline int rows_create(Rows *r, int64_t rows, int k, int bytes, int floats) {
    r->groups = k / GROUP;
    if (bytes && !(r->bytes = room(rows * r->groups * ROW_GROUP))) return 0;
    return !floats || (r->floats = room(rows * k * 4));
}

static inline void rows_destroy(Rows *r) { give_back(r->bytes), give_back(r->floats); }

#endif
