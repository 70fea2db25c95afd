/* Tries the handler as an ordinary program, on a played host: `make test`. */

#include <assert.h>
#include <pelton_mock.h>
#include <string.h>

#include "../src/handler.c"

static pelton_result visit(const char *payload)
{
    return pelton_mock_handle(handle, &(pelton_event){
        .kind = "visit",
        .key = "ada",
        .payload = pelton_bytes_of(payload),
    });
}

int main(void)
{
    pelton_mock_config("greeting", "Good morning");
    assert(visit("{\"name\":\"Ada\"}").outcome == PELTON_OK);
    assert(visit("{\"name\":\"Ada\"}").outcome == PELTON_OK);

    const pelton_mock_event *second = pelton_mock_emitted(1);
    assert(strcmp(second->stream, "greetings") == 0);
    assert(strcmp(second->event.key, "ada") == 0);
    assert(strcmp(second->event.payload.data, "{\"text\":\"Good morning, Ada! Visit 2.\"}") == 0);
    assert(strcmp(pelton_mock_state("visits/ada"), "2") == 0);
    assert(strcmp(pelton_mock_logged(1)->message, "Ada was greeted 2 times") == 0);

    pelton_result nameless = visit("{\"nome\":\"Ada\"}");
    assert(nameless.outcome == PELTON_PERMANENT);
    assert(strcmp(nameless.reason, "payload of kind \"visit\": name: expected a text, found nothing") == 0);
    assert(strcmp(pelton_mock_state("visits/ada"), "2") == 0);
    return 0;
}
