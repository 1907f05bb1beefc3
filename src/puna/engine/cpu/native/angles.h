/* Cosine and sine of large angles with the same bits on every machine: own reduction, own polynomials. */
#ifndef PUNA_ANGLES_H
#define PUNA_ANGLES_H

/* Both to about 1e-9, for |angle| < 2^31. */
void angle(double radians, float *cosine, float *sine);

#endif
