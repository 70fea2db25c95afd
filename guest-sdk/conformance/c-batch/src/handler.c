/* The conformance handler for batches: ../README.md says what each kind of event asks for. */

#include <pelton.h>
#include <stdlib.h>
#include <string.h>

static const char *header(const pelton_event *event, const char *name)
{
    const char *value = pelton_event_header(event, name);
    return value ? value : "";
}

static pelton_result echo(const pelton_event *event)
{
    return pelton_emit("out", &(pelton_new_event){
        .kind = "echo",
        .key = event->key,
        .headers = event->headers,
        .header_count = event->header_count,
        .payload = event->payload,
    });
}

/* Splits "WORD REST" at the first space. */
static const char *word_of(const char *text, const char **rest)
{
    size_t length = strcspn(text, " ");
    *rest = text + length + (text[length] == ' ');
    return pelton_copy(text, length);
}

static pelton_result state_step(const char *step)
{
    const char *rest, *value;
    const char *verb = word_of(step, &rest);
    const char *key = word_of(rest, &value);
    if (strcmp(verb, "set") == 0)
        return pelton_state_set_text(key, value);
    if (strcmp(verb, "delete") == 0) {
        pelton_state_delete(rest);
        return pelton_ok();
    }
    pelton_bytes found;
    bool is_there = pelton_state_get(rest, &found);
    return pelton_emit("out", &(pelton_new_event){
        .kind = is_there ? "state" : "state-absent",
        .key = rest,
        .payload = is_there ? found : pelton_bytes_of(""),
    });
}

static pelton_result state(const pelton_event *event)
{
    for (size_t i = 0; i < event->header_count; i++)
        PELTON_TRY(state_step(event->headers[i].value));
    return pelton_ok();
}

/* Effects that must not stay, before the event fails. */
static pelton_result lose(void)
{
    PELTON_TRY(pelton_emit("out", &(pelton_new_event){ .kind = "lost" }));
    return pelton_state_set_text("lost", "lost");
}

static pelton_result handle_one(const pelton_event *event)
{
    const char *kind = event->kind, *reason = header(event, "reason");
    if (strcmp(kind, "echo") == 0)
        return echo(event);
    if (strcmp(kind, "state") == 0)
        return state(event);
    if (strcmp(kind, "transient") == 0) {
        PELTON_TRY(lose());
        return pelton_transient("%s", reason);
    }
    if (strcmp(kind, "permanent") == 0) {
        PELTON_TRY(lose());
        return pelton_permanent("%s", reason);
    }
    if (strcmp(kind, "retry-after") == 0) {
        PELTON_TRY(lose());
        return pelton_retry_after(strtoull(header(event, "ms"), NULL, 10), "%s", reason);
    }
    if (strcmp(kind, "trap") == 0) {
        PELTON_TRY(lose());
        pelton_panic("%s", reason);
    }
    return pelton_permanent("unknown kind %s", pelton_json_quote(kind));
}

static pelton_result handle(const pelton_event *events, size_t count)
{
    bool tells_progress = strcmp(header(&events[0], "progress"), "no") != 0;
    for (size_t i = 0; i < count; i++) {
        PELTON_TRY(handle_one(&events[i]));
        if (tells_progress)
            pelton_progress_handled(i + 1);
    }
    return pelton_ok();
}

PELTON_BATCH_HANDLER(handle)
