/* Mutates documents at random, for as many rounds as the first argument says, and looks up in all that are still JSON:
 * the sanitizers watch. What is written with pelton_json_quote has to read back. */

#include <assert.h>
#include <pelton_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/arena.h"

static uint64_t seed = 0x9E3779B97F4A7C15;

static size_t chance(size_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)(seed >> 11) % below;
}

static const char *const documents[] = {
    "{\"customer\":{\"name\":\"Ada\",\"tags\":[\"a\",\"\\ud83d\\udc4b\"]},\"amount\":12.5e-3,\"ok\":true}",
    "[[],{},[{\"a.b\":null}],\"\\u00e9\\n\",-0,18446744073709551616]",
    "\"\xF0\x9F\x91\x8B \\\\ \\\" \\/\"",
    "  { \"n\" : 1 , \"n\" : [ 2 , 3 ] , \"\\u006e\" : { \"x\" : false } }  ",
};
static const char *const paths[] = { "", "customer.name", "customer.tags.1", "amount", "n", "n.0", "n.x", "2.0.a", "4" };

static size_t mutate(char *text, size_t length, size_t room)
{
    static const char letters[] = "{}[]\",:\\u0dD8/bfnrt.eE+-19 \t\n\x01\x7f\x80\xc3\xed\xf0\xff";
    for (size_t changes = chance(4); changes > 0; changes--) {
        size_t at = chance(length + 1);
        switch (chance(3)) {
        case 0:
            if (at < length)
                text[at] = letters[chance(sizeof letters - 1)];
            break;
        case 1:
            if (at < length)
                memmove(text + at, text + at + 1, --length - at);
            break;
        default:
            if (length < room) {
                memmove(text + at + 1, text + at, length++ - at);
                text[at] = letters[chance(sizeof letters - 1)];
            }
        }
    }
    return length;
}

/* Every value, and each of them once more by its number. */
static void walk_through(pelton_json value)
{
    pelton_json_walk walk;
    if (value.type == PELTON_JSON_LIST)
        assert(pelton_json_items(value, "", &walk).outcome == PELTON_OK);
    else if (pelton_json_members(value, "", &walk).outcome != PELTON_OK)
        return;
    while (pelton_json_next(&walk)) {
        assert(walk.value.type != PELTON_JSON_ABSENT);
        if (value.type == PELTON_JSON_LIST) {
            pelton_json same = pelton_json_get(value, pelton_format("%zu", walk.passed - 1));
            assert(same.raw.data == walk.value.raw.data && same.raw.length == walk.value.raw.length);
            assert(strcmp(same.path, walk.value.path) == 0);
        }
        walk_through(walk.value);
    }
    if (value.type == PELTON_JSON_LIST)
        assert(pelton_json_get(value, pelton_format("%zu", walk.passed)).type == PELTON_JSON_ABSENT);
}

static void look_up(pelton_json document)
{
    walk_through(document);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const char *text;
        long long number;
        double real;
        bool yes;
        pelton_json_int_or(document, paths[i], 0, &number);
        pelton_json_double_or(document, paths[i], 0, &real);
        pelton_json_bool_or(document, paths[i], false, &yes);
        if (pelton_json_text(document, paths[i], &text).outcome != PELTON_OK)
            continue;
        pelton_json again;
        const char *read;
        assert(pelton_json_parse("again", NULL, pelton_bytes_of(pelton_json_quote(text)), &again).outcome == PELTON_OK);
        assert(pelton_json_text(again, "", &read).outcome == PELTON_OK && strcmp(text, read) == 0);
    }
}

int main(int count, char **arguments)
{
    long rounds = count > 1 ? strtol(arguments[1], NULL, 10) : 100000, valid = 0;
    for (long round = 0; round < rounds; round++) {
        const char *original = documents[chance(sizeof documents / sizeof *documents)];
        size_t length = strlen(original);
        char text[200];
        memcpy(text, original, length);
        length = mutate(text, length, sizeof text);
        /* Exactly as long as it is, so that a sanitizer sees a step too far. */
        char *exact = malloc(length + (length == 0));
        memcpy(exact, text, length);
        pelton_json document;
        if (pelton_json_parse("text", NULL, (pelton_bytes){ exact, length }, &document).outcome == PELTON_OK) {
            valid++;
            look_up(document);
        }
        free(exact);
        arena_end_call();
    }
    printf("%ld rounds, %ld of them JSON\n", rounds, valid);
    return 0;
}
