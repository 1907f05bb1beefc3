/* Products of packed matrices and rows of activations. */
#ifndef PUNA_PRODUCTS_H
#define PUNA_PRODUCTS_H

#include "layout.h"

/* The 16 outputs of a tile for the rows that share a tile with `row` (a multiple of ROWS): out[0] … out[R-1], factors
 * and biases applied. A row's outputs have the same bits whatever other rows there are. */
void product_tile(const Matrix *matrix, int tile, const Rows *rows, int row, vf *out);

#endif
