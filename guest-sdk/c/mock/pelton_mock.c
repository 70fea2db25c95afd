/* All that was done is kept in lists of copies, which only a reset gives back: tests are short. */

#include "pelton_mock.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/arena.h"
#include "../src/host.h"

typedef struct list {
    void **items;
    size_t length;
} list;

typedef struct pair {
    char *key;
    pelton_bytes value; /* data is NULL once it is deleted */
} pair;

static list emitted, logged, writes, settings, refusals;
static size_t emitted_kept, writes_kept, progress, commits;
static size_t in_hand = SIZE_MAX; /* events of the call; outside of one nobody counts */
static jmp_buf *trap;

/* --- lists -------------------------------------------------------------------------------------------------------- */

static list garbage;

static void append(list *list, void *item)
{
    list->items = realloc(list->items, (list->length + 1) * sizeof(void *));
    list->items[list->length++] = item;
}

/* Memory that lives until the reset. */
static void *owned(size_t bytes)
{
    void *memory = calloc(1, bytes);
    append(&garbage, memory);
    return memory;
}

static char *copy_bytes(const char *data, size_t length)
{
    char *copy = owned(length + 1);
    if (length > 0)
        memcpy(copy, data, length);
    return copy;
}

static char *copy(const char *text)
{
    return text ? copy_bytes(text, strlen(text)) : NULL;
}

static void add_pair(list *list, const char *key, const char *data, size_t length)
{
    pair *added = owned(sizeof *added);
    added->key = copy(key);
    added->value = (pelton_bytes){ .data = data ? copy_bytes(data, length) : NULL, .length = length };
    append(list, added);
}

/* The last one counts. */
static const pelton_bytes *find(const list *list, const char *key)
{
    for (size_t i = list->length; i-- > 0;) {
        const pair *pair = list->items[i];
        if (strcmp(pair->key, key) == 0)
            return pair->value.data ? &pair->value : NULL;
    }
    return NULL;
}

/* --- the host's part ---------------------------------------------------------------------------------------------- */

const char *host_emit(const char *stream, const pelton_new_event *event)
{
    const pelton_bytes *reason = find(&refusals, stream);
    if (reason)
        return reason->data;
    pelton_header *headers = owned(event->header_count * sizeof *headers + 1);
    for (size_t i = 0; i < event->header_count; i++)
        headers[i] = (pelton_header){ .name = copy(event->headers[i].name), .value = copy(event->headers[i].value) };
    pelton_mock_event *added = owned(sizeof *added);
    added->stream = copy(stream);
    added->event = (pelton_new_event){
        .kind = copy(event->kind),
        .key = copy(event->key),
        .id = copy(event->id),
        .headers = headers,
        .header_count = event->header_count,
        .payload = { .data = copy_bytes(event->payload.data, event->payload.length), .length = event->payload.length },
    };
    append(&emitted, added);
    return NULL;
}

bool host_state_get(const char *key, pelton_bytes *value)
{
    const pelton_bytes *found = find(&writes, key);
    if (found)
        *value = *found;
    return found;
}

const char *host_state_set(const char *key, pelton_bytes value)
{
    if (!*key)
        return "state key is empty";
    add_pair(&writes, key, value.length > 0 ? value.data : "", value.length);
    return NULL;
}

void host_state_delete(const char *key)
{
    add_pair(&writes, key, NULL, 0);
}

const char *host_config_get(const char *key, const char **failure)
{
    (void)failure;
    const pelton_bytes *found = find(&settings, key);
    return found ? found->data : NULL;
}

void host_log(pelton_level level, const char *context, const char *message)
{
    pelton_mock_line *line = owned(sizeof *line);
    *line = (pelton_mock_line){ .level = level, .context = copy(context), .message = copy(message) };
    append(&logged, line);
}

void host_trap(void)
{
    if (!trap) {
        fprintf(stderr, "panic outside of a handler: %s\n", pelton_mock_logged(logged.length - 1)->message);
        abort();
    }
    longjmp(*trap, 1);
}

static void keep_effects(void)
{
    emitted_kept = emitted.length;
    writes_kept = writes.length;
}

void pelton_progress_handled(size_t count)
{
    if (count > in_hand)
        count = in_hand;
    if (count < progress)
        return;
    progress = count;
    if (count > 0)
        keep_effects();
}

void pelton_checkpoint_commit(void)
{
    commits++;
}

/* --- the test's part ---------------------------------------------------------------------------------------------- */

static void complete(pelton_event *event)
{
    event->id = event->id ? event->id : "";
    event->stream = event->stream ? event->stream : "";
    event->kind = event->kind ? event->kind : "";
    event->payload.data = event->payload.data ? event->payload.data : "";
    event->attempt = event->attempt > 0 ? event->attempt : 1;
}

/* One of the two handlers is NULL. */
static pelton_result call(pelton_handler *handler, pelton_batch_handler *batch_handler, const pelton_event *events,
                          size_t count)
{
    pelton_event *completed = owned(count * sizeof *completed);
    for (size_t i = 0; i < count; i++) {
        completed[i] = events[i];
        complete(&completed[i]);
    }
    keep_effects();
    progress = 0;
    in_hand = count;

    jmp_buf here;
    pelton_result result;
    trap = &here;
    if (setjmp(here) == 0)
        result = handler ? handler(completed) : batch_handler(completed, count);
    else
        result = (pelton_result){ .outcome = PELTON_TRANSIENT, .reason = pelton_mock_logged(logged.length - 1)->message };
    trap = NULL;
    in_hand = SIZE_MAX;

    if (result.outcome != PELTON_OK) {
        emitted.length = emitted_kept;
        writes.length = writes_kept;
    }
    result.reason = copy(result.reason);
    arena_end_call();
    return result;
}

pelton_result pelton_mock_handle(pelton_handler *handler, const pelton_event *event)
{
    return call(handler, NULL, event, 1);
}

pelton_result pelton_mock_handle_batch(pelton_batch_handler *handler, const pelton_event *events, size_t count)
{
    return call(NULL, handler, events, count);
}

static const void *item(const list *list, size_t number)
{
    return number < list->length ? list->items[number] : NULL;
}

const pelton_mock_event *pelton_mock_emitted(size_t number)
{
    return item(&emitted, number);
}

const pelton_mock_line *pelton_mock_logged(size_t number)
{
    return item(&logged, number);
}

const char *pelton_mock_state(const char *key)
{
    const pelton_bytes *found = find(&writes, key);
    return found ? found->data : NULL;
}

size_t pelton_mock_progress(void)
{
    return progress;
}

size_t pelton_mock_commits(void)
{
    return commits;
}

void pelton_mock_config(const char *key, const char *value)
{
    add_pair(&settings, key, value, strlen(value));
}

void pelton_mock_refuse(const char *stream, const char *reason)
{
    add_pair(&refusals, stream, reason, strlen(reason));
}

void pelton_mock_reset(void)
{
    list *lists[] = { &emitted, &logged, &writes, &settings, &refusals };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        free(lists[i]->items);
        *lists[i] = (list){ 0 };
    }
    for (size_t i = 0; i < garbage.length; i++)
        free(garbage.items[i]);
    free(garbage.items);
    garbage = (list){ 0 };
    emitted_kept = writes_kept = progress = commits = 0;
}
