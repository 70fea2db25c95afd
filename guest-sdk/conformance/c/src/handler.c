/* The conformance handler: ../README.md says what each kind of event asks for. */

#include <pelton.h>
#include <stdlib.h>
#include <string.h>

static const char *header(const pelton_event *event, const char *name)
{
    const char *value = pelton_event_header(event, name);
    return value ? value : "";
}

static pelton_result fields(const pelton_event *event)
{
    const pelton_header headers[] = {
        { "id", event->id },
        { "stream", event->stream },
        { "kind", event->kind },
        { "partition", pelton_format("%u", (unsigned)event->partition) },
        { "offset", pelton_format("%llu", (unsigned long long)event->offset) },
        { "time", pelton_format("%llu", (unsigned long long)event->time_ms) },
        { "attempt", pelton_format("%u", (unsigned)event->attempt) },
        { "has-key", event->key ? "true" : "false" },
    };
    return pelton_emit("out", &(pelton_new_event){
        .kind = "fields",
        .key = event->key,
        .headers = headers,
        .header_count = sizeof headers / sizeof *headers,
        .payload = event->payload,
    });
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

static pelton_result emit(const pelton_event *event)
{
    return pelton_emit(header(event, "stream"), &(pelton_new_event){
        .kind = "emit",
        .id = pelton_event_header(event, "id"),
        .key = pelton_event_header(event, "key"),
        .payload = event->payload,
    });
}

static pelton_result emit_refused(void)
{
    pelton_result result = pelton_emit("forbidden", &(pelton_new_event){ .kind = "refused" });
    return pelton_emit("out", &(pelton_new_event){ .kind = "refused", .text = result.reason });
}

static pelton_result emit_many(const pelton_event *event)
{
    long count = strtol(header(event, "count"), NULL, 10);
    for (long i = 0; i < count; i++)
        PELTON_TRY(pelton_emit("out", &(pelton_new_event){ .kind = "many", .text = pelton_format("%ld", i) }));
    return pelton_ok();
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

static pelton_result count(void)
{
    pelton_json seen;
    long long n;
    PELTON_TRY(pelton_state_get_json("count", &seen));
    PELTON_TRY(pelton_json_int_or(seen, "count", 0, &n));
    const char *json = pelton_format("{\"count\":%lld}", n + 1);
    PELTON_TRY(pelton_state_set_text("count", json));
    return pelton_emit("out", &(pelton_new_event){ .kind = "count", .json = json });
}

/* Effects that must not stay, before the event fails. */
static pelton_result lose(void)
{
    PELTON_TRY(pelton_emit("out", &(pelton_new_event){ .kind = "lost" }));
    return pelton_state_set_text("lost", "lost");
}

static pelton_result log_lines(const pelton_event *event)
{
    static const char *const levels[] = { "trace", "debug", "info", "warn", "error", "critical" };
    for (size_t i = 0; i < event->header_count; i++) {
        const char *message;
        const char *level = word_of(event->headers[i].value, &message);
        for (int j = PELTON_TRACE; j <= PELTON_CRITICAL; j++)
            if (strcmp(level, levels[j]) == 0)
                pelton_log((pelton_level)j, "%s", message);
    }
    return pelton_ok();
}

static pelton_result config(const pelton_event *event)
{
    for (size_t i = 0; i < event->header_count; i++) {
        const char *name = event->headers[i].value;
        const char *setting = pelton_config_get(name);
        PELTON_TRY(pelton_emit("out", &(pelton_new_event){
            .kind = setting ? "config" : "config-absent",
            .key = name,
            .text = setting,
        }));
    }
    return pelton_ok();
}

static pelton_result call(const pelton_event *event)
{
    return pelton_emit("out", &(pelton_new_event){
        .kind = "call",
        .id = pelton_format("call-%s", event->id),
        .headers = (pelton_header[]){ { "idempotency-key", event->id } },
        .header_count = 1,
    });
}

static pelton_result typed(const pelton_event *event)
{
    pelton_json order;
    const char *name;
    long long amount;
    PELTON_TRY(pelton_event_json(event, &order));
    PELTON_TRY(pelton_json_text(order, "customer.name", &name));
    PELTON_TRY(pelton_json_int(order, "amount", &amount));
    return pelton_emit("out", &(pelton_new_event){
        .kind = "typed",
        .key = name,
        .json = pelton_format("{\"amount\":%lld}", 2 * amount),
    });
}

static pelton_result handle(const pelton_event *event)
{
    const char *kind = event->kind, *reason = header(event, "reason");
    if (strcmp(kind, "fields") == 0)
        return fields(event);
    if (strcmp(kind, "echo") == 0)
        return echo(event);
    if (strcmp(kind, "emit") == 0)
        return emit(event);
    if (strcmp(kind, "emit-refused") == 0)
        return emit_refused();
    if (strcmp(kind, "emit-many") == 0)
        return emit_many(event);
    if (strcmp(kind, "state") == 0)
        return state(event);
    if (strcmp(kind, "count") == 0)
        return count();
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
    if (strcmp(kind, "loop") == 0)
        for (volatile int forever = 1; forever;)
            ;
    if (strcmp(kind, "log") == 0)
        return log_lines(event);
    if (strcmp(kind, "config") == 0)
        return config(event);
    if (strcmp(kind, "checkpoint") == 0) {
        pelton_checkpoint_commit();
        return pelton_ok();
    }
    if (strcmp(kind, "call") == 0)
        return call(event);
    if (strcmp(kind, "typed") == 0)
        return typed(event);
    return pelton_permanent("unknown kind %s", pelton_json_quote(kind));
}

PELTON_HANDLER(handle)
