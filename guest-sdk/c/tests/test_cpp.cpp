/* pelton.h and pelton_mock.h as a C++ compiler reads them. */

#include <cassert>
#include <cstring>

#include <pelton_mock.h>

static pelton_result handle(const pelton_event *event)
{
    PELTON_TRY(pelton_emit("bare", { .kind = "a" }));
    PELTON_TRY(pelton_emit("text", { .kind = "a", .text = "x" }));
    PELTON_TRY(pelton_emit("bytes", { .kind = "a", .payload = event->payload }));
    PELTON_TRY(pelton_emit("json", pelton_new_event{ .kind = "a", .key = event->key, .json = pelton_format("[%d]", 1) }));
    pelton_new_event made = { .kind = "a" };
    made.id = "7";
    PELTON_TRY(pelton_emit("made", made));
    return pelton_emit("pointer", &made);
}

PELTON_HANDLER(handle)

int main()
{
    pelton_event event = {};
    event.kind = "go";
    event.key = "k";
    event.payload = pelton_bytes_of("bytes");
    assert(pelton_mock_handle(pelton_handler_of_world_worker, &event).outcome == PELTON_OK);

    const struct {
        const char *stream, *key, *id, *payload;
    } expected[] = {
        { "bare", nullptr, nullptr, "" },       { "text", nullptr, nullptr, "x" }, { "bytes", nullptr, nullptr, "bytes" },
        { "json", "k", nullptr, "[1]" },        { "made", nullptr, "7", "" },      { "pointer", nullptr, "7", "" },
    };
    const auto same = [](const char *a, const char *b) { return a && b ? std::strcmp(a, b) == 0 : a == b; };
    size_t number = 0;
    for (const auto &each : expected) {
        const pelton_mock_event *emitted = pelton_mock_emitted(number++);
        assert(emitted && same(emitted->stream, each.stream) && same(emitted->event.key, each.key));
        assert(same(emitted->event.id, each.id) && same(emitted->event.payload.data, each.payload));
    }
    assert(!pelton_mock_emitted(number));
    pelton_mock_reset();
}
