/* Cosine and sine of large angles with the same bits on every machine: own reduction, own polynomials. */
#ifndef PUNA_ANGLES_H
#define PUNA_ANGLES_H

#define MOST_ANGLE 2147483648.0f

/* Both to about a float's last bit, for |angle| < MOST_ANGLE. */
void angle(double radians, float *cosine, float *sine);

#endif
