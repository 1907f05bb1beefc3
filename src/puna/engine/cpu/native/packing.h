/* Tensors of a GGUF file into tiles. */
#ifndef PUNA_PACKING_H
#define PUNA_PACKING_H

#include "layout.h"

/* The format that keeps a tensor type of ggml's; -1 for a type that is not known. */
int format_of(int type);

/* Bytes of a row of k weights in the file; -1 where k is no whole number of its blocks. */
int64_t row_bytes(int type, int64_t k);

/* Bytes of a packed matrix; -1 where that cannot be. */
int64_t packed_bytes(int type, int64_t outputs, int64_t k);

/* One row as floats, exactly what the file says. `to` has room for k rounded up to 32, and is filled up with zeros. */
void unpack_row(int type, const uint8_t *row, int64_t k, float *to);

/* Tiles from … to-1 into `target`, the whole matrix's. Output i is the source's row order[i], zeros for -1, or i without an order.
 * `scale` is multiplied into every weight. Sizes and rows were checked. */
void pack_tiles(int type, const uint8_t *source, int64_t outputs, int64_t k, const int32_t *order, float scale,
                uint8_t *target, int64_t from, int64_t to);

/* Values of CURVE and MX, and of either as i_bytes looks them up: plus 128 where i_dot8 wants that. */
extern const int8_t curve_values[2][16];

#endif
