#include <pelton.h>

static pelton_result handle(const pelton_event *event)
{
    pelton_json visit, seen;
    const char *name;
    long long visits;
    PELTON_TRY(pelton_event_json(event, &visit));
    PELTON_TRY(pelton_json_text(visit, "name", &name));

    const char *counter = pelton_format("visits/%s", event->key ? event->key : name);
    PELTON_TRY(pelton_state_get_json(counter, &seen));
    PELTON_TRY(pelton_json_int_or(seen, "", 0, &visits));
    visits++;
    PELTON_TRY(pelton_state_set_text(counter, pelton_format("%lld", visits)));

    pelton_info("%s was greeted %lld times", name, visits);

    const char *greeting = pelton_config_get_or("greeting", "Hello");
    const char *text = pelton_format("%s, %s! Visit %lld.", greeting, name, visits);
    return pelton_emit("greetings", &(pelton_new_event){
        .kind = "greeted",
        .key = event->key,
        .json = pelton_format("{\"text\":%s}", pelton_json_quote(text)),
    });
}

PELTON_HANDLER(handle)
