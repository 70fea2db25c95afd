/* Parses access log lines, emits each as JSON to the stream `requests`, and counts them by status.
 *
 * A batch handler, for speed: the counts of a batch are kept in memory and written once, together with the word how far
 * it got. */

#include <pelton.h>

#include "access_line.h"

#define STATUS_COUNT 600

static const char *text_or_null(const char *text)
{
    return text ? pelton_json_quote(text) : "null";
}

static pelton_result emit(const access_line *line)
{
    return pelton_emit("requests", &(pelton_new_event){
        .kind = "request",
        .key = line->client,
        .json = pelton_format("{\"client\":%s,\"user\":%s,\"time\":\"%s\",\"method\":%s,\"path\":%s,\"status\":%d,"
                              "\"bytes\":%lld,\"referer\":%s,\"agent\":%s}",
                              pelton_json_quote(line->client), text_or_null(line->user), line->time,
                              pelton_json_quote(line->method), pelton_json_quote(line->path), line->status,
                              line->bytes, text_or_null(line->referer), text_or_null(line->agent)),
    });
}

/* The payload is a line as it is, or a JSON string of it. */
static pelton_result line_of(const pelton_event *event, const char **text)
{
    *text = event->payload.data;
    if (**text != '"')
        return pelton_ok();
    pelton_json payload;
    PELTON_TRY(pelton_event_json(event, &payload));
    return pelton_json_text(payload, "", text);
}

static pelton_result handle_line(const pelton_event *event, int *counts)
{
    const char *text;
    PELTON_TRY(line_of(event, &text));
    access_line line;
    int column;
    const char *expected = access_line_parse(text, &line, &column);
    if (expected)
        return pelton_permanent("not in Combined Log Format: expected %s at column %d", expected, column);
    PELTON_TRY(emit(&line));
    counts[line.status]++;
    return pelton_ok();
}

static pelton_result add_to_state(const int *counts)
{
    for (int status = 0; status < STATUS_COUNT; status++) {
        if (counts[status] == 0)
            continue;
        const char *key = pelton_format("status/%d", status);
        pelton_json before;
        long long count;
        PELTON_TRY(pelton_state_get_json(key, &before));
        PELTON_TRY(pelton_json_int_or(before, "", 0, &count));
        PELTON_TRY(pelton_state_set_text(key, pelton_format("%lld", count + counts[status])));
    }
    return pelton_ok();
}

static pelton_result handle(const pelton_event *events, size_t count)
{
    int counts[STATUS_COUNT] = { 0 };
    size_t done = 0;
    pelton_result result = pelton_ok();
    while (done < count && (result = handle_line(&events[done], counts)).outcome == PELTON_OK)
        done++;

    /* What the lines before a bad one came to is kept. */
    PELTON_TRY(add_to_state(counts));
    pelton_progress_handled(done);
    return result;
}

PELTON_BATCH_HANDLER(handle)
