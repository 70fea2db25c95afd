/* Speaks the contract, through the generated bindings of the world that is built (its folder is in the include path). */

#include "contract.h"

#include <stdlib.h>
#include <string.h>

#include "../src/arena.h"
#include "../src/host.h"
#include "../src/utf8.h"
#include "wasi.h"

/* The generated code gives back what it was handed over piece by piece. Here the arena owns all of it. */
#define free(pointer) ((void)(pointer))
#define abort() host_trap()
#include "guest.c"
#undef abort
#undef free

uint64_t contract_time_ms;

void contract_end_call(void)
{
    wasi_end_call();
    arena_end_call();
}

static guest_string_t to_guest(const char *text)
{
    return (guest_string_t){ .ptr = (uint8_t *)(uintptr_t)text, .len = strlen(text) };
}

static guest_option_string_t to_guest_option(const char *text)
{
    return text ? (guest_option_string_t){ .is_some = true, .val = to_guest(text) } : (guest_option_string_t){ 0 };
}

static guest_list_u8_t to_guest_bytes(pelton_bytes bytes)
{
    return (guest_list_u8_t){ .ptr = (uint8_t *)(uintptr_t)bytes.data, .len = bytes.length };
}

static const char *from_guest(guest_string_t text)
{
    return (const char *)text.ptr;
}

static const pelton_header *headers_from_guest(guest_list_tuple2_string_string_t headers)
{
    pelton_header *all = pelton_alloc(headers.len * sizeof *all);
    for (size_t i = 0; i < headers.len; i++)
        all[i] = (pelton_header){ .name = from_guest(headers.ptr[i].f0), .value = from_guest(headers.ptr[i].f1) };
    return all;
}

static guest_list_tuple2_string_string_t headers_to_guest(const pelton_header *headers, size_t count)
{
    guest_tuple2_string_string_t *all = pelton_alloc(count * sizeof *all);
    for (size_t i = 0; i < count; i++)
        all[i] = (guest_tuple2_string_string_t){ .f0 = to_guest(headers[i].name), .f1 = to_guest(headers[i].value) };
    return (guest_list_tuple2_string_string_t){ .ptr = all, .len = count };
}

pelton_event contract_event(const pelton_worker_types_event_t *event)
{
    return (pelton_event){
        .id = from_guest(event->id),
        .stream = from_guest(event->stream),
        .partition = event->partition,
        .offset = event->offset,
        .key = event->key.is_some ? from_guest(event->key.val) : NULL,
        .kind = from_guest(event->kind),
        .time_ms = event->time,
        .headers = headers_from_guest(event->headers),
        .header_count = event->headers.len,
        .payload = { .data = (const char *)event->payload.ptr, .length = event->payload.len },
        .attempt = event->attempt,
    };
}

bool contract_result(pelton_result result, pelton_worker_types_error_t *error)
{
    guest_string_t reason = to_guest(result.reason ? utf8_repaired(result.reason) : "");
    switch (result.outcome) {
    case PELTON_OK:
        return true;
    case PELTON_TRANSIENT:
        error->tag = PELTON_WORKER_TYPES_ERROR_TRANSIENT;
        error->val.transient = reason;
        return false;
    case PELTON_RETRY_AFTER:
        error->tag = PELTON_WORKER_TYPES_ERROR_RETRY_AFTER;
        error->val.retry_after = (guest_tuple2_u64_string_t){ .f0 = result.delay_ms, .f1 = reason };
        return false;
    case PELTON_PERMANENT:
        error->tag = PELTON_WORKER_TYPES_ERROR_PERMANENT;
        error->val.permanent = reason;
        return false;
    }
    pelton_panic("the handler returned %d, which is no outcome", (int)result.outcome);
}

const char *host_emit(const char *stream, const pelton_new_event *event)
{
    guest_string_t to = to_guest(stream), reason;
    pelton_worker_outbox_new_event_t new_event = {
        .id = to_guest_option(event->id),
        .key = to_guest_option(event->key),
        .kind = to_guest(event->kind),
        .headers = headers_to_guest(event->headers, event->header_count),
        .payload = to_guest_bytes(event->payload),
    };
    return pelton_worker_outbox_emit(&to, &new_event, &reason) ? NULL : from_guest(reason);
}

bool host_state_get(const char *key, pelton_bytes *value)
{
    guest_string_t name = to_guest(key);
    guest_list_u8_t bytes;
    if (!pelton_worker_state_get(&name, &bytes))
        return false;
    *value = (pelton_bytes){ .data = (const char *)bytes.ptr, .length = bytes.len };
    return true;
}

const char *host_state_set(const char *key, pelton_bytes value)
{
    guest_string_t name = to_guest(key), reason;
    guest_list_u8_t bytes = to_guest_bytes(value);
    return pelton_worker_state_set(&name, &bytes, &reason) ? NULL : from_guest(reason);
}

void host_state_delete(const char *key)
{
    guest_string_t name = to_guest(key);
    pelton_worker_state_delete(&name);
}

const char *host_config_get(const char *key, const char **failure)
{
    guest_string_t name = to_guest(key);
    guest_option_string_t value;
    wasi_config_store_error_t error;
    if (wasi_config_store_get(&name, &value, &error))
        return value.is_some ? from_guest(value.val) : NULL;
    *failure = from_guest(error.tag == WASI_CONFIG_STORE_ERROR_IO ? error.val.io : error.val.upstream);
    return NULL;
}

void host_log(pelton_level level, const char *context, const char *message)
{
    guest_string_t where = to_guest(context), what = to_guest(message);
    wasi_logging_logging_log((wasi_logging_logging_level_t)level, &where, &what);
}

void host_trap(void)
{
    wasi_end_call();
    __builtin_trap();
}
