/* Write event handlers for Pelton in C.
 *
 *     #include <pelton.h>
 *
 *     static pelton_result handle(const pelton_event *event)
 *     {
 *         return pelton_emit("greetings", &(pelton_new_event){ .kind = "greeted", .key = event->key, .text = "Hello!" });
 *     }
 *
 *     PELTON_HANDLER(handle)
 *
 * What a handler emits and stores is committed together with the position of the event, or not at all: returning an
 * error throws it away.
 *
 * Memory: everything that this library hands out, the event included, lives until the call returns. Nothing is to be
 * freed, and nothing may be kept for the next call.
 *
 * Texts are C strings in UTF-8: no text of an event can hold a NUL character. Payloads and values of the state are bytes
 * with a length; a NUL byte, which the length does not count, follows all that this library hands out. */

#ifndef PELTON_H
#define PELTON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PELTON_PRINTF_LIKE(text, rest) __attribute__((format(printf, text, rest)))
#define PELTON_NEVER_RETURNS __attribute__((noreturn))
#else
#define PELTON_PRINTF_LIKE(text, rest)
#define PELTON_NEVER_RETURNS
#endif

/* What may be left out of a list in braces: C++ compilers warn of it unless a value is given here. */
#if defined(__cplusplus) && __cplusplus >= 201402L
#define PELTON_OR_NOTHING = {}
#else
#define PELTON_OR_NOTHING
#endif

/* --- events ------------------------------------------------------------------------------------------------------- */

typedef struct pelton_bytes {
    const char *data;
    size_t length;
} pelton_bytes;

typedef struct pelton_header {
    const char *name;
    const char *value;
} pelton_header;

/* One event as it stands in its stream. */
typedef struct pelton_event {
    const char *id; /* the same at every delivery: the idempotency key for calls outside */
    const char *stream;
    uint32_t partition;
    uint64_t offset; /* its place in the partition: dense, from 0, never reused */
    const char *key; /* NULL if it has none; events of one key arrive in order */
    const char *kind; /* what happened, as "order.placed" */
    uint64_t time_ms; /* when it was appended, in milliseconds since the Unix epoch, UTC */
    const pelton_header *headers; /* in the order they were appended in; a name may occur more than once */
    size_t header_count;
    pelton_bytes payload; /* as it was appended, usually JSON */
    uint32_t attempt; /* 1 at the first delivery; one more for each attempt that failed */
} pelton_event;

/* The value of the first header of this name, NULL if there is none. */
const char *pelton_event_header(const pelton_event *event, const char *name);

/* --- what came of it ---------------------------------------------------------------------------------------------- */

/* The class of an error decides what the group's failure policy does next. */
typedef enum pelton_outcome {
    PELTON_OK,
    PELTON_TRANSIENT, /* trying again may help */
    PELTON_RETRY_AFTER, /* as transient, but not before a delay */
    PELTON_PERMANENT /* trying again will not help */
} pelton_outcome;

typedef struct pelton_result {
    pelton_outcome outcome;
    const char *reason; /* NULL if all went well */
    uint64_t delay_ms; /* of PELTON_RETRY_AFTER */
} pelton_result;

pelton_result pelton_ok(void);
pelton_result pelton_transient(const char *format, ...) PELTON_PRINTF_LIKE(1, 2);
pelton_result pelton_retry_after(uint64_t delay_ms, const char *format, ...) PELTON_PRINTF_LIKE(2, 3);
pelton_result pelton_permanent(const char *format, ...) PELTON_PRINTF_LIKE(1, 2);

/* Returns from the function it stands in, with the error, if there is one. */
#define PELTON_TRY(result)                                                                                             \
    do {                                                                                                               \
        pelton_result pelton_tried = (result);                                                                         \
        if (pelton_tried.outcome != PELTON_OK)                                                                         \
            return pelton_tried;                                                                                       \
    } while (0)

/* Ends the call as a mistake in the program: the instance is dropped, and the event fails as after a transient error,
 * with this message as the reason. A failed assert() and abort() end so as well. */
#define pelton_panic(...) pelton_panic_at(PELTON_FILE, __LINE__, __VA_ARGS__)
PELTON_NEVER_RETURNS void pelton_panic_at(const char *file, int line, const char *format, ...) PELTON_PRINTF_LIKE(3, 4);

/* --- effects ------------------------------------------------------------------------------------------------------ */

/* An event to emit. What is left out is absent. */
typedef struct pelton_new_event {
    const char *kind; /* required */
    /* events of one key keep their order; without a key the id decides the partition */
    const char *key PELTON_OR_NOTHING;
    /* unique within the group: a second event of the same id is not appended again; made if absent */
    const char *id PELTON_OR_NOTHING;
    const pelton_header *headers PELTON_OR_NOTHING;
    size_t header_count PELTON_OR_NOTHING;
    union { /* the payload as a text, or else as bytes */
        const char *text PELTON_OR_NOTHING;
        const char *json;
    };
    pelton_bytes payload PELTON_OR_NOTHING;
} pelton_new_event;

/* Emits an event. It becomes visible when, and only when, the position of the event in hand is committed.
 *
 * A permanent error tells why it was refused: a stream that `allow.emit` does not name, a payload over the stream's
 * limit. Nothing was emitted then, and the call may go on. In C++ it takes the event itself as well, see the end. */
pelton_result pelton_emit(const char *stream, const pelton_new_event *event);

/* State of this group and partition, which moves with the partition. A handler reads what it wrote.
 *
 * A key has 1 to 1024 bytes; another one is a permanent error. */
bool pelton_state_get(const char *key, pelton_bytes *value); /* false, and nothing done, if there is no value */
pelton_result pelton_state_set(const char *key, pelton_bytes value);
pelton_result pelton_state_set_text(const char *key, const char *value);
void pelton_state_delete(const char *key);

/* --- surroundings ------------------------------------------------------------------------------------------------- */

/* A setting or secret that `workers.toml` gives the handler. */
const char *pelton_config_get(const char *key); /* NULL if there is none */
const char *pelton_config_get_or(const char *key, const char *otherwise);

typedef enum pelton_level {
    PELTON_TRACE, /* each step, to follow the handler's way */
    PELTON_DEBUG, /* what helps to find a fault */
    PELTON_INFO, /* what an operator may want to know */
    PELTON_WARN, /* something unexpected that the handler could cope with */
    PELTON_ERROR, /* something went wrong */
    PELTON_CRITICAL /* the handler cannot go on */
} pelton_level;

/* Writes a log line, with the file's name as its context. */
#define pelton_log(level, ...) pelton_log_in(PELTON_FILE, level, __VA_ARGS__)
#define pelton_trace(...) pelton_log(PELTON_TRACE, __VA_ARGS__)
#define pelton_debug(...) pelton_log(PELTON_DEBUG, __VA_ARGS__)
#define pelton_info(...) pelton_log(PELTON_INFO, __VA_ARGS__)
#define pelton_warn(...) pelton_log(PELTON_WARN, __VA_ARGS__)
#define pelton_error(...) pelton_log(PELTON_ERROR, __VA_ARGS__)
#define pelton_critical(...) pelton_log(PELTON_CRITICAL, __VA_ARGS__)
void pelton_log_in(const char *context, pelton_level level, const char *format, ...) PELTON_PRINTF_LIKE(3, 4);

#ifdef __FILE_NAME__
#define PELTON_FILE __FILE_NAME__
#else
#define PELTON_FILE __FILE__
#endif

/* In the world `worker`, for groups with `commit = "manual"`: everything up to and including the event in hand may be
 * committed once the handler returned ok. */
void pelton_checkpoint_commit(void);

/* In the world `batch-worker`: the first `count` events of this batch are handled, and the effects made so far are
 * theirs. They are kept even if the call fails or traps later; the event after them is the one that failed. */
void pelton_progress_handled(size_t count);

/* --- memory and texts --------------------------------------------------------------------------------------------- */

/* Memory until the call returns, aligned for any type. Never NULL: a call that needs more than it may have is ended. */
void *pelton_alloc(size_t bytes);

/* A text as printf would print it. */
const char *pelton_format(const char *format, ...) PELTON_PRINTF_LIKE(1, 2);

/* A copy of a part of a text, as a text of its own. */
const char *pelton_copy(const char *from, size_t length);

/* The bytes of a text. */
pelton_bytes pelton_bytes_of(const char *text);

/* --- JSON --------------------------------------------------------------------------------------------------------- */

typedef enum pelton_json_type {
    PELTON_JSON_ABSENT,
    PELTON_JSON_NULL,
    PELTON_JSON_BOOL,
    PELTON_JSON_NUMBER,
    PELTON_JSON_TEXT,
    PELTON_JSON_LIST,
    PELTON_JSON_OBJECT
} pelton_json_type;

/* A value within a JSON document, as it is written there. */
typedef struct pelton_json {
    pelton_json_type type;
    pelton_bytes raw;
    const char *path, *source, *name; /* for error messages */
} pelton_json;

/* Checks the payload, the value of the state, or any bytes and takes them for a JSON document. What is not JSON is a
 * permanent error that tells the place. A state that has no value is absent. `source` and `name` are for error
 * messages, as `reply of "example.org": not JSON at byte 1`. Objects and lists may lie 128 deep in one another. */
pelton_result pelton_event_json(const pelton_event *event, pelton_json *document);
pelton_result pelton_state_get_json(const char *key, pelton_json *document);
pelton_result pelton_json_parse(const char *source, const char *name, pelton_bytes bytes, pelton_json *document);

/* What stands under a path, as "customer.name", "lines.0.amount", or "" for the value itself. What is absent, or has
 * another type, is a permanent error that names the path. With `_or`, what is absent or null, or below what is, is
 * `otherwise`; below a text or a number nothing can be absent. An int is a whole number from -2^63 to 2^63-1, written
 * without a point or exponent. It is a permanent error, too, if a number is larger than its type can hold. */
pelton_result pelton_json_text(pelton_json in, const char *path, const char **value);
pelton_result pelton_json_text_or(pelton_json in, const char *path, const char *otherwise, const char **value);
pelton_result pelton_json_int(pelton_json in, const char *path, long long *value);
pelton_result pelton_json_int_or(pelton_json in, const char *path, long long otherwise, long long *value);
pelton_result pelton_json_double(pelton_json in, const char *path, double *value);
pelton_result pelton_json_double_or(pelton_json in, const char *path, double otherwise, double *value);
pelton_result pelton_json_bool(pelton_json in, const char *path, bool *value);
pelton_result pelton_json_bool_or(pelton_json in, const char *path, bool otherwise, bool *value);

/* Whether what stands under a path has this type; else the permanent error that says what it is. */
pelton_result pelton_json_expect(pelton_json in, const char *path, pelton_json_type type);

/* What stands under a path, of whatever type. If a name occurs twice in an object, its last value counts. */
pelton_json pelton_json_get(pelton_json in, const char *path);

/* Goes through the items of a list, or the members of an object, from the first to the last. What is absent, or no list
 * or object, is a permanent error that names the path; a walk over it is at its end.
 *
 *     pelton_json_walk lines;
 *     PELTON_TRY(pelton_json_items(order, "lines", &lines));
 *     while (pelton_json_next(&lines)) {
 *         long long amount;
 *         PELTON_TRY(pelton_json_int(lines.value, "amount", &amount)); // names "lines.3.amount" if it is none
 *     }
 *
 * This reads a list once. Asking for "lines.0", "lines.1" and so on begins anew each time, from the document's first byte
 * on. A walk can be copied, to come back to where it was. */
typedef struct pelton_json_walk {
    pelton_json value; /* the item, or the member's value */
    pelton_bytes name; /* of the member. With NUL behind it; a member whose name occurs twice is passed twice */
    size_t passed; /* how many there were so far, with this one */
    pelton_json of; /* what it goes through */
    const char *at; /* its own */
} pelton_json_walk;

pelton_result pelton_json_items(pelton_json in, const char *path, pelton_json_walk *walk);
pelton_result pelton_json_members(pelton_json in, const char *path, pelton_json_walk *walk);
bool pelton_json_next(pelton_json_walk *walk); /* false, and nothing done, behind the last one */

/* The text as a JSON string, with its quotation marks. The way to write JSON:
 *
 *     pelton_format("{\"name\":%s,\"visits\":%d}", pelton_json_quote(name), visits) */
const char *pelton_json_quote(const char *text);

/* --- the handler -------------------------------------------------------------------------------------------------- */

/* Makes a function the handler of the component; to be used once. It handles one event at a time: the host knows exactly
 * which one failed. The place to start. */
#define PELTON_HANDLER(function)                                                                                       \
    PELTON_EXTERN_C pelton_result pelton_handler_of_world_worker(const pelton_event *event)                            \
    {                                                                                                                  \
        return function(event);                                                                                        \
    }

/* The same for the world `batch-worker`: many events at once, for bulk work. The function is given the next events of
 * one partition, in order and at least one, as `(const pelton_event *events, size_t count)`. */
#define PELTON_BATCH_HANDLER(function)                                                                                 \
    PELTON_EXTERN_C pelton_result pelton_handler_of_world_batch_worker(const pelton_event *events, size_t count)       \
    {                                                                                                                  \
        return function(events, count);                                                                                \
    }

pelton_result pelton_handler_of_world_worker(const pelton_event *event);
pelton_result pelton_handler_of_world_batch_worker(const pelton_event *events, size_t count);

#ifdef __cplusplus
}
/* C++ has no address of what is made on the spot: pelton_emit("greetings", { .kind = "greeted", .key = event->key }). */
inline pelton_result pelton_emit(const char *stream, const pelton_new_event &event)
{
    return pelton_emit(stream, &event);
}

#define PELTON_EXTERN_C extern "C"
#else
#define PELTON_EXTERN_C
#endif

#endif
