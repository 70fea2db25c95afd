/* The words of pelton.h that need no knowledge of the contract. */

#include "pelton.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "arena.h"
#include "host.h"
#include "utf8.h"

/* Prints into what is left of the arena, and again only if that was too short. */
static const char *print(const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    size_t room;
    char *text = arena_room(&room);
    int length = vsnprintf(text, room, format, arguments);
    if (length < 0)
        pelton_panic("format \"%s\" cannot be printed", format);
    text = arena_take((size_t)length + 1, 1);
    if ((size_t)length >= room)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

#define PRINT(text, format)                                                                                            \
    do {                                                                                                               \
        va_list arguments;                                                                                             \
        va_start(arguments, format);                                                                                   \
        text = print(format, arguments);                                                                               \
        va_end(arguments);                                                                                             \
    } while (0)

const char *pelton_format(const char *format, ...)
{
    const char *text;
    PRINT(text, format);
    return text;
}

void *pelton_alloc(size_t bytes)
{
    return arena_take(bytes, 16);
}

const char *pelton_copy(const char *from, size_t length)
{
    char *copy = arena_take(length + 1, 1);
    memcpy(copy, from, length);
    copy[length] = '\0';
    return copy;
}

pelton_bytes pelton_bytes_of(const char *text)
{
    return (pelton_bytes){ .data = text, .length = strlen(text) };
}

const char *pelton_event_header(const pelton_event *event, const char *name)
{
    for (size_t i = 0; i < event->header_count; i++)
        if (strcmp(event->headers[i].name, name) == 0)
            return event->headers[i].value;
    return NULL;
}

pelton_result pelton_ok(void)
{
    return (pelton_result){ .outcome = PELTON_OK };
}

pelton_result pelton_transient(const char *format, ...)
{
    pelton_result result = { .outcome = PELTON_TRANSIENT };
    PRINT(result.reason, format);
    return result;
}

pelton_result pelton_retry_after(uint64_t delay_ms, const char *format, ...)
{
    pelton_result result = { .outcome = PELTON_RETRY_AFTER, .delay_ms = delay_ms };
    PRINT(result.reason, format);
    return result;
}

pelton_result pelton_permanent(const char *format, ...)
{
    pelton_result result = { .outcome = PELTON_PERMANENT };
    PRINT(result.reason, format);
    return result;
}

/* The host takes a line of this level and context for the reason of the trap that follows. */
void host_panic(const char *message)
{
    host_log(PELTON_CRITICAL, "panic", utf8_repaired(message));
    host_trap();
}

void pelton_panic_at(const char *file, int line, const char *format, ...)
{
    const char *message;
    PRINT(message, format);
    host_panic(pelton_format("%s (at %s:%d)", message, file, line));
}

void pelton_log_in(const char *context, pelton_level level, const char *format, ...)
{
    const char *message;
    PRINT(message, format);
    host_log(level, context, utf8_repaired(message));
}

/* A text that is not UTF-8 would be a trap: the contract knows no such text. */
static pelton_result check_text(const char *what, const char *text)
{
    return !text || utf8_is_text(text) ? pelton_ok() : pelton_permanent("%s is not UTF-8", what);
}

static pelton_result refused(const char *reason)
{
    return (pelton_result){ .outcome = reason ? PELTON_PERMANENT : PELTON_OK, .reason = reason };
}

pelton_result pelton_emit(const char *stream, const pelton_new_event *event)
{
    if (!event->kind)
        pelton_panic("an event to be emitted has no kind");
    PELTON_TRY(check_text("stream of new event", stream));
    PELTON_TRY(check_text("kind of new event", event->kind));
    PELTON_TRY(check_text("key of new event", event->key));
    PELTON_TRY(check_text("id of new event", event->id));
    for (size_t i = 0; i < event->header_count; i++) {
        PELTON_TRY(check_text("header of new event", event->headers[i].name));
        PELTON_TRY(check_text("header of new event", event->headers[i].value));
    }
    pelton_new_event with_bytes = *event;
    if (event->text)
        with_bytes.payload = pelton_bytes_of(event->text);
    return refused(host_emit(stream, &with_bytes));
}

bool pelton_state_get(const char *key, pelton_bytes *value)
{
    return utf8_is_text(key) && host_state_get(key, value);
}

pelton_result pelton_state_set(const char *key, pelton_bytes value)
{
    PELTON_TRY(check_text("state key", key));
    return refused(host_state_set(key, value));
}

pelton_result pelton_state_set_text(const char *key, const char *value)
{
    return pelton_state_set(key, pelton_bytes_of(value));
}

void pelton_state_delete(const char *key)
{
    if (utf8_is_text(key))
        host_state_delete(key);
}

const char *pelton_config_get(const char *key)
{
    const char *failure = NULL;
    const char *value = utf8_is_text(key) ? host_config_get(key, &failure) : NULL;
    if (failure)
        pelton_panic("config \"%s\": %s", key, failure);
    return value;
}

const char *pelton_config_get_or(const char *key, const char *otherwise)
{
    const char *value = pelton_config_get(key);
    return value ? value : otherwise;
}
