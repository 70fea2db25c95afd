/* What only a component shows: lines that are printed, memory that is not there, and a list as long as a payload may be. */

#include <pelton.h>
#include <stdio.h>
#include <string.h>

static void print_often(const char *text, int times)
{
    for (int i = 0; i < times; i++)
        fputs(text, stdout);
}

static pelton_result add_up(const pelton_event *event)
{
    pelton_json payload;
    pelton_json_walk items;
    long long number, sum = 0;
    PELTON_TRY(pelton_event_json(event, &payload));
    PELTON_TRY(pelton_json_items(payload, "list", &items));
    while (pelton_json_next(&items)) {
        PELTON_TRY(pelton_json_int(items.value, "", &number));
        sum += number;
    }
    return pelton_emit("out", &(pelton_new_event){ .kind = "sum", .json = pelton_format("[%zu,%lld]", items.passed, sum) });
}

static pelton_result handle(const pelton_event *event)
{
    if (strcmp(event->kind, "add up") == 0)
        return add_up(event);
    if (strcmp(event->kind, "print") == 0) {
        printf("of %s, and no newline", event->id);
        fprintf(stderr, "%d warning", 1);
        return pelton_ok();
    }
    if (strcmp(event->kind, "print nothing") == 0)
        return pelton_ok();
    if (strcmp(event->kind, "print and panic") == 0) {
        printf("last words");
        pelton_panic("no %d", 7);
    }
    if (strcmp(event->kind, "print and run out of memory") == 0) {
        printf("\xff, which takes memory to repair");
        while (true)
            pelton_alloc(1);
    }
    if (strcmp(event->kind, "too much") == 0)
        pelton_panic("got %p", pelton_alloc(SIZE_MAX));
    /* A line ends at 1,023 bytes: inside a character of two, three and four bytes, at its first, second and third. */
    const char *const begins[] = { "", "a", "ab", "abc" }, *const characters[] = { "é", "€", "👋" };
    for (size_t i = 0; i < 12; i++) {
        fputs(begins[i % 4], stdout);
        print_often(characters[i / 4], 600);
        puts("|");
    }
    print_often("€", 700); /* and no newline */
    return pelton_ok();
}

PELTON_HANDLER(handle)
