/* The world `worker`: one event at a time. */

#include "../contract.h"

bool exports_pelton_worker_handler_handle(pelton_worker_types_event_t *from_host, pelton_worker_types_error_t *error)
{
    const pelton_event event = contract_event(from_host);
    contract_time_ms = event.time_ms;
    bool done = contract_result(pelton_handler_of_world_worker(&event), error);
    contract_end_call();
    return done;
}

void pelton_checkpoint_commit(void)
{
    pelton_worker_checkpoint_commit();
}
