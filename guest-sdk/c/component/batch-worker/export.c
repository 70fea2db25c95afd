/* The world `batch-worker`: many events at once. */

#include "../contract.h"

static const pelton_event *batch;
static size_t batch_count;

bool exports_pelton_worker_batch_handler_handle_batch(exports_pelton_worker_batch_handler_list_event_t *from_host,
                                                      pelton_worker_types_error_t *error)
{
    pelton_event *events = pelton_alloc(from_host->len * sizeof *events);
    for (size_t i = 0; i < from_host->len; i++)
        events[i] = contract_event(&from_host->ptr[i]);
    batch = events;
    batch_count = from_host->len;
    contract_time_ms = events[0].time_ms;
    bool done = contract_result(pelton_handler_of_world_batch_worker(events, from_host->len), error);
    contract_end_call();
    return done;
}

void pelton_progress_handled(size_t count)
{
    if (count < batch_count)
        contract_time_ms = batch[count].time_ms;
    pelton_worker_progress_handled((uint32_t)count);
}
