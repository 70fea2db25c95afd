// The header in C++: the handler of docs/c.md.

#include <pelton.h>

#include <string>

static pelton_result handle(const pelton_event *event)
{
    pelton_json visit;
    const char *name;
    PELTON_TRY(pelton_event_json(event, &visit));
    PELTON_TRY(pelton_json_text(visit, "name", &name));

    const std::string text = "Hello, " + std::string(name) + "!";
    return pelton_emit("out", {
        .kind = "greeted",
        .key = event->key,
        .json = pelton_format("{\"text\":%s}", pelton_json_quote(text.c_str())),
    });
}

PELTON_HANDLER(handle)
