#include <assert.h>
#include <pelton_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/arena.h"

static bool is_json(const char *text)
{
    pelton_json document;
    return pelton_json_parse("text", NULL, pelton_bytes_of(text), &document).outcome == PELTON_OK;
}

static pelton_json parsed(const char *text)
{
    pelton_json document;
    assert(pelton_json_parse("text", NULL, pelton_bytes_of(text), &document).outcome == PELTON_OK);
    return document;
}

static const char *text_at(const char *json, const char *path)
{
    const char *value = NULL;
    pelton_result result = pelton_json_text(parsed(json), path, &value);
    return result.outcome == PELTON_OK ? value : result.reason;
}

static const char *int_at(const char *json, const char *path)
{
    long long value;
    pelton_result result = pelton_json_int(parsed(json), path, &value);
    return result.outcome == PELTON_OK ? pelton_format("%lld", value) : result.reason;
}

static bool same(const char *found, const char *expected)
{
    return strcmp(found, expected) == 0;
}

static void the_grammar_is_kept(void)
{
    const char *good[] = { "0", "-0", "1.5e-7", "1E+2", " [ ] ", "{ }", "[1,[2,{\"a\":null}]]", "true", "\"\"",
                           "\"\\ud83d\\udc4b\"", "\"\\u0000\"", "\"\x7f\"" };
    const char *bad[] = { "", " ", "01", "1.", ".5", "-", "+1", "1e", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}",
                          "{a:1}", "nul", "truex", "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud83d\"", "\"\\ud83dx\"",
                          "\"\\udc4b\"", "\"\\ud83d\\ud83d\"", "\"a\nb\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
                          "[1 2]", "[", "]", "1 2", "{\"a\":1", "NaN", "'a'", "[1}" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert(is_json(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert(!is_json(bad[i]));

}

static void what_is_nested_too_deeply_is_said_to_be(void)
{
    enum { DEPTH = 128 };
    char deep[2 * DEPTH + 5] = "";
    memset(deep, '[', DEPTH);
    deep[DEPTH] = '7';
    memset(deep + DEPTH + 1, ']', DEPTH);
    assert(is_json(deep));

    memset(deep, '[', DEPTH + 1);
    memset(deep + DEPTH + 1, ']', DEPTH + 1);
    pelton_json document;
    assert(same(pelton_json_parse("text", NULL, pelton_bytes_of(deep), &document).reason,
                "text: not JSON that can be read: nested more than 128 deep at byte 129"));
    /* What is wrong before that, or instead of it. */
    deep[7] = 'x';
    assert(same(pelton_json_parse("text", NULL, pelton_bytes_of(deep), &document).reason, "text: not JSON at byte 8"));
    memset(deep, '[', DEPTH);
    deep[DEPTH] = '\0';
    assert(same(pelton_json_parse("text", NULL, pelton_bytes_of(deep), &document).reason, "text: not JSON at byte 129"));
}

static void values_are_found(void)
{
    const char *order = " {\"customer\" : {\"name\":\"Ada\",\"tags\":[\"a\",{\"x\":[1,2,3]}]},\"n\":7,\"n\":8,\"\":\"empty\"} ";
    assert(same(text_at(order, "customer.name"), "Ada"));
    assert(same(text_at(order, "customer.tags.0"), "a"));
    assert(same(int_at(order, "customer.tags.1.x.2"), "3"));
    assert(same(int_at(order, "n"), "8"));
    assert(same(int_at("{\"\\u006e\":1}", "n"), "1"));
    assert(pelton_json_get(parsed(order), "customer.tags").type == PELTON_JSON_LIST);
    assert(pelton_json_get(parsed(order), "customer.tags.2").type == PELTON_JSON_ABSENT);
    assert(pelton_json_get(parsed(order), "customer.tags.00x").type == PELTON_JSON_ABSENT);
    assert(pelton_json_get(parsed(order), "customer.name.x").type == PELTON_JSON_ABSENT);

    long long amount = 0;
    assert(pelton_json_int_or(parsed(order), "amount", 5, &amount).outcome == PELTON_OK && amount == 5);
    assert(pelton_json_int_or(parsed("{\"amount\":null}"), "amount", 6, &amount).outcome == PELTON_OK && amount == 6);
    assert(pelton_json_int_or(parsed("{\"amount\":\"7\"}"), "amount", 6, &amount).outcome == PELTON_PERMANENT);
    double real = 0;
    assert(pelton_json_double(parsed("[1e3]"), "0", &real).outcome == PELTON_OK && real == 1000.0);
    bool yes = false;
    assert(pelton_json_bool(parsed("[true]"), "0", &yes).outcome == PELTON_OK && yes);
}

static const char *text_or(const char *json, const char *path)
{
    const char *value = NULL;
    pelton_result result = pelton_json_text_or(parsed(json), path, "nobody", &value);
    return result.outcome == PELTON_OK ? value : result.reason;
}

static void a_double_is_a_number(void)
{
    double real = 7;
    assert(pelton_json_double(parsed("1.7976931348623157e308"), "", &real).outcome == PELTON_OK && real > 1.7e308);
    assert(pelton_json_double(parsed("1e-999"), "", &real).outcome == PELTON_OK && real == 0);
    real = 7;
    const char *const expected = "text: a: expected a number from -1.8e308 to 1.8e308, found ";
    const char *const beyond[] = { "1e999", "-1e999", "1.8e308" };
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        pelton_json document = parsed(pelton_format("{\"a\":%s}", beyond[i]));
        assert(same(pelton_json_double(document, "a", &real).reason, pelton_format("%s%s", expected, beyond[i])));
        assert(pelton_json_double_or(document, "a", 1, &real).outcome == PELTON_PERMANENT);
    }
    assert(real == 7);
}

static void a_default_is_for_what_is_absent_or_null(void)
{
    const char *const missing[] = { "{}", "null", "{\"customer\":null}", "{\"customer\":{}}", "{\"customer\":[]}",
                                    "[]", "{\"customer\":{\"name\":null}}", "{\"customer\":{\"name\":{\"first\":null}}}" };
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        assert(same(text_or(missing[i], "customer.name.first"), "nobody"));
    assert(same(text_or("{\"customer\":{\"name\":\"Ada\"}}", "customer.name"), "Ada"));

    /* What is of another type on the way there is not absent. */
    assert(same(text_or("{\"customer\":\"Ada\"}", "customer.name"), "text: customer: expected an object, found a text"));
    assert(same(text_or("{\"a\":{\"b\":7}}", "a.b.c.d"), "text: a.b: expected an object, found a number"));
    assert(same(text_or("[true]", "0.name"), "text: 0: expected an object, found true or false"));
    assert(same(text_or("\"Ada\"", "name"), "text: expected an object, found a text"));
    assert(same(text_at("7", "a.b"), "text: expected an object, found a number"));
    pelton_json name = pelton_json_get(parsed("{\"customer\":{\"name\":5}}"), "customer.name");
    const char *value;
    assert(same(pelton_json_text_or(name, "first", "nobody", &value).reason,
                "text: customer.name: expected an object, found a number"));

    pelton_json state;
    assert(pelton_state_get_json("no state", &state).outcome == PELTON_OK);
    assert(pelton_json_text_or(state, "a.b", "nobody", &value).outcome == PELTON_OK && same(value, "nobody"));
}

static void texts_are_unescaped(void)
{
    assert(same(text_at("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", ""), "\"\\/\b\f\n\r\t"));
    assert(same(text_at("\"\\u00e9\\u20ac\\ud83d\\udc4b\\uD83D\\uDC4B\"", ""), "é€👋👋"));
    assert(same(text_at("\"é€👋\"", ""), "é€👋"));
    assert(same(text_at("\"a\\u0000b\"", ""), "text: expected a text, found one that holds a NUL character"));
}

static void a_mismatch_names_the_path(void)
{
    assert(same(text_at("{\"a\":{\"b\":1}}", "a.b"), "text: a.b: expected a text, found a number"));
    assert(same(text_at("{\"a\":1}", "a.b"), "text: a: expected an object, found a number"));
    assert(same(text_at("{\"a\":{}}", "a.b"), "text: a.b: expected a text, found nothing"));
    assert(same(text_at("{}", "a.b.c"), "text: a: expected an object, found nothing"));
    assert(same(text_at("[]", ""), "text: expected a text, found a list"));
    assert(same(int_at("[1.0]", "0"), "text: 0: expected a whole number, found 1.0"));
    assert(same(int_at("9223372036854775807", ""), "9223372036854775807"));
    assert(same(int_at("9223372036854775808", ""), "text: expected a whole number from -2^63 to 2^63-1, found 9223372036854775808"));
    assert(same(int_at("-9223372036854775808", ""), "-9223372036854775808"));

    const char *name;
    pelton_json customer = pelton_json_get(parsed("{\"lines\":[{\"customer\":{}}]}"), "lines.0.customer");
    assert(same(pelton_json_text(customer, "name", &name).reason,
                "text: lines.0.customer.name: expected a text, found nothing"));

    pelton_json state;
    assert(pelton_state_set_text("k\"", "{").outcome == PELTON_OK);
    assert(same(pelton_state_get_json("k\"", &state).reason, "state \"k\\\"\": not JSON at byte 2"));
    assert(pelton_state_get_json("other", &state).outcome == PELTON_OK && state.type == PELTON_JSON_ABSENT);
}

static void names_with_escapes_are_found(void)
{
    const char *json = "{\"\\u00e9\\ud83d\\udc4b\\n\":1,\"a\\u0000b\":2,\"\\u0065\":3}";
    assert(same(int_at(json, "é👋\n"), "1"));
    assert(same(int_at(json, "e"), "3"));
    const char *const others[] = { "é", "é👋", "é👋\nx", "a", "u0065" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert(pelton_json_get(parsed(json), others[i]).type == PELTON_JSON_ABSENT);

    /* Looking for one takes no memory. */
    size_t before, after;
    pelton_json document = parsed(json);
    arena_room(&before);
    long long number;
    assert(pelton_json_int_or(document, "none", 7, &number).outcome == PELTON_OK && number == 7);
    arena_room(&after);
    assert(before == after);
}

static void lists_and_objects_are_walked_through(void)
{
    pelton_json order = parsed("{\"lines\":[ {\"n\":1} , {\"n\":\"x\"},[[7 ]] ],\"of\":{\"a\" : 1,\"b.\\u00e9\":{\"c\":null},\"a\":2},"
                               "\"none\":[ ],\"nothing\":{}}");
    pelton_json_walk lines, inner;
    long long number = 0;
    assert(pelton_json_items(order, "lines", &lines).outcome == PELTON_OK);
    assert(pelton_json_next(&lines) && lines.passed == 1 && same(lines.value.path, "lines.0"));
    assert(pelton_json_int(lines.value, "n", &number).outcome == PELTON_OK && number == 1);
    assert(pelton_json_next(&lines));
    assert(same(pelton_json_int(lines.value, "n", &number).reason, "text: lines.1.n: expected a number, found a text"));
    assert(pelton_json_next(&lines) && lines.value.type == PELTON_JSON_LIST && lines.value.raw.length == 6);
    assert(pelton_json_items(lines.value, "0", &inner).outcome == PELTON_OK && pelton_json_next(&inner));
    assert(same(inner.value.path, "lines.2.0.0") && pelton_json_int(inner.value, "", &number).outcome == PELTON_OK);
    assert(number == 7 && !pelton_json_next(&inner));
    assert(!pelton_json_next(&lines) && !pelton_json_next(&lines) && lines.passed == 3);

    pelton_json_walk members;
    assert(pelton_json_members(order, "of", &members).outcome == PELTON_OK);
    assert(pelton_json_next(&members) && same(members.name.data, "a") && same(members.value.path, "of.a"));
    assert(pelton_json_next(&members) && same(members.name.data, "b.é") && members.name.length == 4);
    assert(same(pelton_json_text(members.value, "c", &(const char *){ NULL }).reason,
                "text: of.b.é.c: expected a text, found null"));
    pelton_json_walk copy = members;
    assert(pelton_json_next(&members) && same(members.value.raw.data, "2},\"none\":[ ],\"nothing\":{}}"));
    assert(!pelton_json_next(&members) && pelton_json_next(&copy) && copy.passed == 3);

    assert(pelton_json_items(order, "none", &lines).outcome == PELTON_OK && !pelton_json_next(&lines));
    assert(pelton_json_members(order, "nothing", &lines).outcome == PELTON_OK && !pelton_json_next(&lines));
    assert(same(pelton_json_items(order, "of", &lines).reason, "text: of: expected a list, found an object"));
    assert(!pelton_json_next(&lines));
    assert(same(pelton_json_members(order, "other", &lines).reason, "text: other: expected an object, found nothing"));

    /* The whole document, and a name that holds a NUL character. */
    assert(pelton_json_items(parsed("[true,\"a\"]"), "", &lines).outcome == PELTON_OK && pelton_json_next(&lines));
    assert(same(pelton_json_int(lines.value, "", &number).reason, "text: 0: expected a number, found true or false"));
    assert(pelton_json_members(pelton_json_get(parsed("{\"a\\u0000b\":1}"), ""), "", &members).outcome == PELTON_OK);
    assert(pelton_json_next(&members) && members.name.length == 3 && memcmp(members.name.data, "a\0b", 4) == 0);
}

/* By number it would take minutes: each one is looked for from the first on. */
static void a_long_list_is_read_in_one_pass(void)
{
    enum { COUNT = 500000 };
    char *json = malloc(COUNT * 8 + 2), *to = json;
    for (int i = 0; i < COUNT; i++)
        to += sprintf(to, "%c%d", i == 0 ? '[' : ',', i);
    strcpy(to, "]");
    pelton_json_walk numbers;
    long long number, sum = 0;
    assert(pelton_json_items(parsed(json), "", &numbers).outcome == PELTON_OK);
    while (pelton_json_next(&numbers)) {
        assert(pelton_json_int(numbers.value, "", &number).outcome == PELTON_OK);
        sum += number;
    }
    assert(numbers.passed == COUNT && sum == (long long)COUNT * (COUNT - 1) / 2);
    free(json);
}

static void what_is_quoted_reads_back(void)
{
    assert(same(pelton_json_quote("a\"\\\n\x01\x1fé"), "\"a\\\"\\\\\\n\\u0001\\u001fé\""));
    assert(same(pelton_json_quote("\xff|\xc3"), "\"\xEF\xBF\xBD|\xEF\xBF\xBD\""));
    for (int c = 1; c < 128; c++) {
        char text[] = { (char)c, 'x', '\0' };
        assert(same(text_at(pelton_json_quote(text), ""), text));
    }
}

int main(void)
{
    the_grammar_is_kept();
    what_is_nested_too_deeply_is_said_to_be();
    values_are_found();
    a_double_is_a_number();
    a_default_is_for_what_is_absent_or_null();
    texts_are_unescaped();
    a_mismatch_names_the_path();
    names_with_escapes_are_found();
    lists_and_objects_are_walked_through();
    a_long_list_is_read_in_one_pass();
    what_is_quoted_reads_back();
    pelton_mock_reset();
    return 0;
}
