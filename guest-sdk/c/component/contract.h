/* Between the generated bindings of a world and pelton.h. */

#ifndef PELTON_CONTRACT_H
#define PELTON_CONTRACT_H

#include "guest.h"
#include "pelton.h"

pelton_event contract_event(const pelton_worker_types_event_t *event);

/* Fills in the error and returns false if the result is one: what an export returns. */
bool contract_result(pelton_result result, pelton_worker_types_error_t *error);

/* What the C library takes for the time of day: that of the event in hand. See wasi.c. */
extern uint64_t contract_time_ms;

/* To be called when the handler returned. */
void contract_end_call(void);

#endif
