/* The words of pelton.h on the played host, and the arena that they take their memory from. */

#include <assert.h>
#include <pelton_mock.h>
#include <string.h>

#include "../src/arena.h"
#include "../src/utf8.h"

static pelton_result handle(const pelton_event *event)
{
    PELTON_TRY(pelton_state_set_text("seen", event->kind));
    PELTON_TRY(pelton_emit("out", &(pelton_new_event){
        .kind = "copy",
        .key = event->key,
        .headers = event->headers,
        .header_count = event->header_count,
        .payload = event->payload,
    }));
    if (strcmp(event->kind, "fail") == 0)
        return pelton_retry_after(1500, "no %s", "luck");
    if (strcmp(event->kind, "panic") == 0)
        pelton_panic("no %d", 7);
    pelton_checkpoint_commit();
    return pelton_ok();
}

static pelton_result handle_batch(const pelton_event *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        PELTON_TRY(handle(&events[i]));
        pelton_progress_handled(i + 1);
    }
    return pelton_ok();
}

static void effects_of_a_success_stay(void)
{
    const pelton_header headers[] = { { "a", "1" }, { "a", "2" } };
    pelton_result result = pelton_mock_handle(handle, &(pelton_event){
        .kind = "go",
        .headers = headers,
        .header_count = 2,
        .payload = { .data = "a\0b", .length = 3 },
    });
    assert(result.outcome == PELTON_OK);
    const pelton_mock_event *emitted = pelton_mock_emitted(0);
    assert(!emitted->event.key && emitted->event.header_count == 2 && strcmp(emitted->event.headers[1].value, "2") == 0);
    assert(emitted->event.payload.length == 3 && memcmp(emitted->event.payload.data, "a\0b", 4) == 0);
    assert(!pelton_mock_emitted(1));
    assert(strcmp(pelton_mock_state("seen"), "go") == 0);
    assert(pelton_mock_commits() == 1);
}

static void effects_of_a_failure_do_not(void)
{
    pelton_result result = pelton_mock_handle(handle, &(pelton_event){ .kind = "fail" });
    assert(result.outcome == PELTON_RETRY_AFTER && result.delay_ms == 1500 && strcmp(result.reason, "no luck") == 0);
    result = pelton_mock_handle(handle, &(pelton_event){ .kind = "panic" });
    assert(result.outcome == PELTON_TRANSIENT && strncmp(result.reason, "no 7 (at ", 9) == 0);
    assert(!pelton_mock_emitted(0) && !pelton_mock_state("seen"));
    assert(pelton_mock_logged(0)->level == PELTON_CRITICAL && !pelton_mock_logged(1));

    const pelton_event batch[] = { { .kind = "one" }, { .kind = "two" }, { .kind = "fail" }, { .kind = "four" } };
    assert(pelton_mock_handle_batch(handle_batch, batch, 4).outcome == PELTON_RETRY_AFTER);
    assert(pelton_mock_progress() == 2 && pelton_mock_emitted(1) && !pelton_mock_emitted(2));
    assert(strcmp(pelton_mock_state("seen"), "two") == 0);
}

static size_t steps[3];

static pelton_result handle_in_steps(const pelton_event *events, size_t count)
{
    (void)events, (void)count;
    for (size_t i = 0; i < 3; i++) {
        PELTON_TRY(pelton_state_set_text("step", pelton_format("%zu", i)));
        pelton_progress_handled(steps[i]);
    }
    return pelton_transient("no luck");
}

static void progress_is_taken_as_the_host_takes_it(void)
{
    const struct {
        size_t steps[3], progress;
        const char *kept;
    } cases[] = {
        { { 0, 0, 0 }, 0, NULL }, /* of none there is nothing to keep */
        { { 2, 1, 0 }, 2, "0" }, /* going back is no news */
        { { 2, 2, 1 }, 2, "1" },
        { { 1, 9, 2 }, 2, "2" }, /* no more than there are */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(steps, cases[i].steps, sizeof steps);
        const pelton_event batch[] = { { .kind = "one" }, { .kind = "two" } };
        assert(pelton_mock_handle_batch(handle_in_steps, batch, 2).outcome == PELTON_TRANSIENT);
        const char *kept = pelton_mock_state("step");
        assert(pelton_mock_progress() == cases[i].progress);
        assert(cases[i].kept ? kept && strcmp(kept, cases[i].kept) == 0 : !kept);
        pelton_mock_reset();
    }
}

static void what_cannot_be_taken_is_refused(void)
{
    pelton_mock_refuse("closed", "stream \"closed\" is not allowed");
    pelton_result result = pelton_emit("closed", &(pelton_new_event){ .kind = "x" });
    assert(result.outcome == PELTON_PERMANENT && strcmp(result.reason, "stream \"closed\" is not allowed") == 0);
    result = pelton_emit("out", &(pelton_new_event){ .kind = "x", .key = "\xff" });
    assert(result.outcome == PELTON_PERMANENT && strcmp(result.reason, "key of new event is not UTF-8") == 0);
    assert(pelton_state_set_text("\xff", "").outcome == PELTON_PERMANENT);
    assert(!pelton_mock_emitted(0));
}

static void what_is_logged_is_utf8(void)
{
    pelton_info("a%s%d", "\xc3\xff€", 1);
    assert(strcmp(pelton_mock_logged(0)->message, "a\xEF\xBF\xBD\xEF\xBF\xBD€1") == 0);
    assert(strcmp(utf8_repaired("\xf0\x9f\x91\x8b"), "👋") == 0);
    assert(!utf8_is_text("\xf4\x90\x80\x80") && !utf8_is_text("\xe0\x9f\xbf") && utf8_is_text("\xf4\x8f\xbf\xbf"));
}

static void a_character_at_the_end_may_be_unfinished(void)
{
    const char *text = "aé€👋"; /* 1, 2, 3 and 4 bytes */
    const size_t unfinished[] = { 0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0 };
    for (size_t length = 0; length < sizeof unfinished / sizeof *unfinished; length++)
        assert(utf8_unfinished(text, text + length) == unfinished[length]);
    const char *const broken[] = { "\x80\x80\x80\x80", "\x80", "a\xff", "\xc1", "\xc3\xa9\x80" };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        assert(utf8_unfinished(broken[i], broken[i] + strlen(broken[i])) == 0);
}

static size_t wanted;

static pelton_result take_too_much(const pelton_event *event)
{
    (void)event;
    pelton_alloc(wanted);
    return pelton_ok();
}

static void too_much_memory_ends_the_call(void)
{
    for (size_t less = 0; less < 100000; less += less < 100 ? 1 : 9999) {
        wanted = SIZE_MAX - less;
        pelton_result result = pelton_mock_handle(take_too_much, &(pelton_event){ .kind = "x" });
        assert(result.outcome == PELTON_TRANSIENT && strncmp(result.reason, "out of memory: there are no 1844", 32) == 0);
    }
}

static void memory_is_used_again(void)
{
    char *first = arena_take(10, 1);
    for (int call = 0; call < 100; call++) {
        for (size_t bytes = 1; bytes < 300000; bytes = bytes * 3 + 1) {
            char *memory = arena_take(bytes, bytes % 2 ? 16 : 8);
            assert((uintptr_t)memory % 8 == 0);
            memset(memory, call, bytes);
        }
        arena_end_call();
    }
    char *again = arena_take(10, 1);
    arena_end_call();
    arena_take(0, 1);
    assert(again == arena_take(10, 1));
    (void)first;

    const char *text = pelton_format("%0100000d|", 7);
    assert(strlen(text) == 100001 && strcmp(text + 99998, "07|") == 0);
    assert(strcmp(pelton_copy("abc", 2), "ab") == 0);
}

int main(void)
{
    void (*const tests[])(void) = { effects_of_a_success_stay, effects_of_a_failure_do_not,
                                    progress_is_taken_as_the_host_takes_it, what_cannot_be_taken_is_refused,
                                    what_is_logged_is_utf8, a_character_at_the_end_may_be_unfinished,
                                    too_much_memory_ends_the_call, memory_is_used_again };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        tests[i]();
        pelton_mock_reset();
    }
    return 0;
}
