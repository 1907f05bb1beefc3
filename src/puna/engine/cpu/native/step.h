/* One step: the rows of many sequences through all layers of a model. */
#ifndef PUNA_STEP_H
#define PUNA_STEP_H

#include "model.h"
#include "threads.h"

typedef struct Engine Engine;

/* NULL if there is no memory or thread for it. The model and all that it points to must outlive the engine. */
Engine *engine_create(const Model *model, int threads);
void engine_destroy(Engine *engine);
const Model *engine_model(const Engine *engine);
Team *engine_team(Engine *engine);

/* Logits of the wanted rows; keys and values of all rows into the cache. What the step says was checked. */
void engine_step(Engine *engine, const Step *step);

/* Where a thread's time went since it was asked last, in ticks of the processor's clock, by kind of phase. */
enum { T_EMBED, T_NORM, T_QKV, T_ATTEND, T_OUTPUT, T_GATED, T_DOWN, T_HEAD, T_WAIT, T_KINDS };
void engine_spent(Engine *engine, int thread, uint64_t *spent);

#endif
