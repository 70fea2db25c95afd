/* JSON, read where it stands: a document is checked once, as a whole, and then looked up in without further checks.
 * Memory is taken for what is handed out only: texts, numbers while they are read, paths, and the reasons of errors. */

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "json_scan.h"
#include "pelton.h"

/* What was read from `begin` on. */
static pelton_bytes read_since(const char *begin, const json_scanner *s)
{
    return (pelton_bytes){ .data = begin, .length = (size_t)(s->at - begin) };
}

static pelton_json read_value(json_scanner *s)
{
    const char *begin = s->at;
    json_check_value(s);
    pelton_json_type type = *begin == '{'                   ? PELTON_JSON_OBJECT
                            : *begin == '['                 ? PELTON_JSON_LIST
                            : *begin == '"'                 ? PELTON_JSON_TEXT
                            : *begin == 't' || *begin == 'f' ? PELTON_JSON_BOOL
                            : *begin == 'n'                 ? PELTON_JSON_NULL
                                                            : PELTON_JSON_NUMBER;
    return (pelton_json){ .type = type, .raw = read_since(begin, s) };
}

/* What stands between the quotation marks. */
static json_scanner inside(pelton_bytes raw)
{
    return (json_scanner){ .at = raw.data + 1, .end = raw.data + raw.length - 1 };
}

/* Passes a byte or an escape of a text; its value has one to four bytes, and is never longer than what is passed. */
static size_t unescape(json_scanner *s, char *to)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char c = *s->at++;
    if (c != '\\') {
        *to = c;
        return 1;
    }
    c = *s->at++;
    if (c != 'u') {
        *to = meanings[strchr(escapes, c) - escapes];
        return 1;
    }
    static const unsigned char first[] = { 0, 0xC0, 0xE0, 0xF0 };
    uint32_t code = (uint32_t)json_unicode_escape(s);
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to = (char)(first[more] | code >> (6 * more));
    for (int i = 1; i <= more; i++)
        to[i] = (char)(0x80 | ((code >> (6 * (more - i))) & 0x3F));
    return (size_t)more + 1;
}

/* Writes a text's value, and a NUL byte behind it: no more bytes than the text has inside its quotation marks, and one. */
static size_t unescape_all(pelton_bytes raw, char *to)
{
    const char *begin = to;
    for (json_scanner s = inside(raw); s.at < s.end;)
        to += unescape(&s, to);
    *to = '\0';
    return (size_t)(to - begin);
}

static bool is_named(pelton_bytes member, const char *name, size_t length)
{
    for (json_scanner s = inside(member); s.at < s.end;) {
        char part[4];
        size_t bytes = unescape(&s, part);
        if (bytes > length || memcmp(part, name, bytes) != 0)
            return false;
        name += bytes;
        length -= bytes;
    }
    return length == 0;
}

/* Passes the next item of a list, or member of an object, and what separates it from the one before. */
static bool next_child(json_scanner *s, pelton_json_type of, pelton_bytes *name, pelton_json *value)
{
    json_skip_space(s);
    if (s->at == s->end)
        return false;
    if (json_accept(s, ','))
        json_skip_space(s);
    if (of == PELTON_JSON_OBJECT) {
        const char *begin = s->at++;
        json_check_text(s);
        *name = read_since(begin, s);
        json_skip_space(s);
        json_accept(s, ':');
        json_skip_space(s);
    }
    *value = read_value(s);
    return true;
}

/* The member of an object, or the item of a list that has the name as its number. */
static pelton_json child(pelton_json in, const char *name, size_t length)
{
    pelton_json found = { .type = PELTON_JSON_ABSENT };
    char *end = NULL;
    unsigned long wanted = length > 0 && *name >= '0' && *name <= '9' ? strtoul(name, &end, 10) : ULONG_MAX;
    if (in.type == PELTON_JSON_LIST && end != name + length)
        return found;
    pelton_bytes member = { 0 };
    pelton_json value;
    json_scanner s = inside(in.raw);
    for (unsigned long number = 0; next_child(&s, in.type, &member, &value); number++) {
        if (in.type == PELTON_JSON_LIST && number == wanted)
            return value;
        if (in.type == PELTON_JSON_OBJECT && is_named(member, name, length))
            found = value;
    }
    return found;
}

static bool has_children(pelton_json_type type)
{
    return type == PELTON_JSON_OBJECT || type == PELTON_JSON_LIST;
}

/* Stops at what has no children, and leaves the rest of the path. */
static pelton_json find_until(pelton_json in, const char **path)
{
    while (**path && has_children(in.type)) {
        size_t length = strcspn(*path, ".");
        in = child(in, *path, length);
        *path += length + ((*path)[length] == '.');
    }
    return in;
}

static pelton_json find(pelton_json in, const char *path)
{
    in = find_until(in, &path);
    return *path ? (pelton_json){ .type = PELTON_JSON_ABSENT } : in;
}

/* What is not there, or null, or below what is. Below a text or a number nothing can be missing. */
static bool is_missing(pelton_json in, const char *path)
{
    return find_until(in, &path).type <= PELTON_JSON_NULL;
}

/* --- the interface ------------------------------------------------------------------------------------------------ */

/* A value knows its path unless it is a whole document. */
static const char *joined(const char *path, const char *more)
{
    return !path || !*path ? more : !*more ? path : pelton_format("%s.%s", path, more);
}

static const char *source_of(const char *source, const char *name)
{
    return name ? pelton_format("%s %s", source, pelton_json_quote(name)) : source;
}

pelton_result pelton_json_parse(const char *source, const char *name, pelton_bytes bytes, pelton_json *document)
{
    json_scanner s = { .at = bytes.data, .end = bytes.data + bytes.length };
    json_skip_space(&s);
    json_scanner value = s;
    bool is_json = json_check_value(&s);
    json_skip_space(&s);
    const size_t place = (size_t)(s.at - bytes.data) + 1;
    if (s.is_too_deep)
        return pelton_permanent("%s: not JSON that can be read: nested more than %d deep at byte %zu",
                                source_of(source, name), JSON_DEPTH_MAX, place);
    if (!is_json || s.at < s.end)
        return pelton_permanent("%s: not JSON at byte %zu", source_of(source, name), place);
    *document = read_value(&value);
    document->source = source;
    document->name = name;
    return pelton_ok();
}

pelton_result pelton_event_json(const pelton_event *event, pelton_json *document)
{
    return pelton_json_parse("payload of kind", event->kind, event->payload, document);
}

pelton_result pelton_state_get_json(const char *key, pelton_json *document)
{
    pelton_bytes value;
    if (pelton_state_get(key, &value))
        return pelton_json_parse("state", key, value, document);
    *document = (pelton_json){ .type = PELTON_JSON_ABSENT, .source = "state", .name = key };
    return pelton_ok();
}

pelton_json pelton_json_get(pelton_json in, const char *path)
{
    pelton_json found = find(in, path);
    found.path = joined(in.path, path);
    found.source = in.source;
    found.name = in.name;
    return found;
}

static pelton_result mismatch(pelton_json in, const char *path, const char *expected, const char *found)
{
    const char *full = joined(in.path, path);
    return pelton_permanent("%s: %s%sexpected %s, found %s", source_of(in.source, in.name), full, *full ? ": " : "",
                            expected, found);
}

static const char *name_of(pelton_json_type type)
{
    static const char *const names[] = { "nothing", "null", "true or false", "a number", "a text", "a list", "an object" };
    return names[type];
}

/* Finds what is of the type, or says why not: what stands in the way, if something does. */
static pelton_result expect(pelton_json in, const char *path, pelton_json_type type, pelton_json *value)
{
    *value = find(in, path);
    if (value->type == type)
        return pelton_ok();
    if (*path && in.type > PELTON_JSON_NULL && !has_children(in.type))
        return mismatch(in, "", "an object", name_of(in.type));
    for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
        const char *parent_path = pelton_copy(path, (size_t)(dot - path));
        pelton_json_type parent = find(in, parent_path).type;
        if (parent < PELTON_JSON_LIST)
            return mismatch(in, parent_path, "an object", name_of(parent));
    }
    return mismatch(in, path, name_of(type), name_of(value->type));
}

pelton_result pelton_json_expect(pelton_json in, const char *path, pelton_json_type type)
{
    pelton_json found;
    return expect(in, path, type, &found);
}

pelton_result pelton_json_text(pelton_json in, const char *path, const char **value)
{
    pelton_json found;
    PELTON_TRY(expect(in, path, PELTON_JSON_TEXT, &found));
    char *text = arena_take(found.raw.length, 1);
    size_t length = unescape_all(found.raw, text);
    *value = text;
    return strlen(text) == length ? pelton_ok() : mismatch(in, path, "a text", "one that holds a NUL character");
}

/* A number as it is written, with a NUL byte behind it. */
static const char *digits(pelton_json number)
{
    return pelton_copy(number.raw.data, number.raw.length);
}

pelton_result pelton_json_int(pelton_json in, const char *path, long long *value)
{
    pelton_json found;
    PELTON_TRY(expect(in, path, PELTON_JSON_NUMBER, &found));
    const char *written = digits(found);
    char *end;
    errno = 0;
    const long long number = strtoll(written, &end, 10);
    if (*end)
        return mismatch(in, path, "a whole number", written);
    if (errno == ERANGE)
        return mismatch(in, path, "a whole number from -2^63 to 2^63-1", written);
    *value = number;
    return pelton_ok();
}

pelton_result pelton_json_double(pelton_json in, const char *path, double *value)
{
    pelton_json found;
    PELTON_TRY(expect(in, path, PELTON_JSON_NUMBER, &found));
    const char *written = digits(found);
    const double number = strtod(written, NULL);
    if (!isfinite(number))
        return mismatch(in, path, "a number from -1.8e308 to 1.8e308", written);
    *value = number;
    return pelton_ok();
}

pelton_result pelton_json_bool(pelton_json in, const char *path, bool *value)
{
    pelton_json found;
    PELTON_TRY(expect(in, path, PELTON_JSON_BOOL, &found));
    *value = *found.raw.data == 't';
    return pelton_ok();
}

static pelton_result begin_walk(pelton_json in, const char *path, pelton_json_type type, pelton_json_walk *walk)
{
    *walk = (pelton_json_walk){ .of = { .type = PELTON_JSON_ABSENT } };
    pelton_json found;
    PELTON_TRY(expect(in, path, type, &found));
    found.path = joined(in.path, path);
    found.source = in.source;
    found.name = in.name;
    walk->of = found;
    walk->at = inside(found.raw).at;
    return pelton_ok();
}

pelton_result pelton_json_items(pelton_json in, const char *path, pelton_json_walk *walk)
{
    return begin_walk(in, path, PELTON_JSON_LIST, walk);
}

pelton_result pelton_json_members(pelton_json in, const char *path, pelton_json_walk *walk)
{
    return begin_walk(in, path, PELTON_JSON_OBJECT, walk);
}

bool pelton_json_next(pelton_json_walk *walk)
{
    const pelton_json of = walk->of;
    if (of.type == PELTON_JSON_ABSENT)
        return false;
    json_scanner s = inside(of.raw);
    s.at = walk->at;
    pelton_bytes member = { 0 };
    pelton_json value;
    if (!next_child(&s, of.type, &member, &value))
        return false;

    /* The path ends with the name or number, which is written only once. */
    const size_t parent = of.path ? strlen(of.path) : 0, before = parent + (parent > 0);
    char *path = arena_take(before + (member.length > 0 ? member.length : 3 * sizeof(size_t) + 1), 1);
    if (parent > 0) {
        memcpy(path, of.path, parent);
        path[parent] = '.';
    }
    if (of.type == PELTON_JSON_OBJECT)
        walk->name = (pelton_bytes){ .data = path + before, .length = unescape_all(member, path + before) };
    else
        snprintf(path + before, 3 * sizeof(size_t) + 1, "%zu", walk->passed);
    value.path = path;
    value.source = of.source;
    value.name = of.name;
    walk->value = value;
    walk->at = s.at;
    walk->passed++;
    return true;
}

#define OR(name, c_type)                                                                                               \
    pelton_result pelton_json_##name##_or(pelton_json in, const char *path, c_type otherwise, c_type *value)           \
    {                                                                                                                  \
        if (!is_missing(in, path))                                                                                     \
            return pelton_json_##name(in, path, value);                                                                \
        *value = otherwise;                                                                                            \
        return pelton_ok();                                                                                            \
    }

OR(text, const char *)
OR(int, long long)
OR(double, double)
OR(bool, bool)
