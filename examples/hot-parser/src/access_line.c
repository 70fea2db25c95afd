#include "access_line.h"

#include <pelton.h>
#include <stdlib.h>
#include <string.h>

/* Passes this text, if it comes next. */
static bool accept(const char **at, const char *text)
{
    size_t length = strlen(text);
    if (strncmp(*at, text, length) != 0)
        return false;
    *at += length;
    return true;
}

/* A field up to the next space; NULL if it is empty. */
static const char *word(const char **at)
{
    size_t length = strcspn(*at, " ");
    const char *begin = *at;
    *at += length;
    return length > 0 ? pelton_copy(begin, length) : NULL;
}

/* "-" stands for what is absent. */
static const char *or_absent(const char *field)
{
    return strcmp(field, "-") == 0 ? NULL : field;
}

static int digit_of_base_16(char c)
{
    const char *digits = "0123456789abcdef", *found = c ? strchr(digits, c | 0x20) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* Servers write a quotation mark as \" or \x22, and what is no letter as \xHH. A NUL stays as it is written. */
static const char *quoted(const char **at)
{
    if (!accept(at, "\""))
        return NULL;
    char *text = pelton_alloc(strlen(*at) + 1), *to = text;
    for (;;) {
        char c = *(*at)++;
        if (c == '\0')
            return NULL;
        if (c == '"')
            break;
        if (c == '\\' && (**at == '"' || **at == '\\')) {
            c = *(*at)++;
        } else if (c == '\\' && **at == 'x') {
            int high = digit_of_base_16((*at)[1]), low = high < 0 ? -1 : digit_of_base_16((*at)[2]);
            if (low >= 0 && high + low > 0) {
                c = (char)(high * 16 + low);
                *at += 3;
            }
        }
        *to++ = c;
    }
    *to = '\0';
    return text;
}

/* "22/Nov/2026:10:56:13 +0100" becomes "2026-11-22T10:56:13+01:00". */
static bool timestamp(const char **at, char *rfc3339)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec", pattern[] = "00/aaa/0000:00:00:00 +0000";
    const char *from = *at;
    for (size_t i = 0; pattern[i]; i++) {
        char c = from[i], kind = pattern[i];
        bool fits = kind == '0'   ? c >= '0' && c <= '9'
                    : kind == 'a' ? (c | 0x20) >= 'a' && (c | 0x20) <= 'z'
                    : kind == '+' ? c == '+' || c == '-'
                                  : c == kind;
        if (!fits)
            return false;
    }
    int month = 0;
    while (month < 12 && memcmp(months + 3 * month, from + 3, 3) != 0)
        month++;
    if (month++ == 12)
        return false;
    *at += sizeof pattern - 1;

    char *to = rfc3339;
    memcpy(to, from + 7, 4);
    to[4] = '-';
    to[5] = (char)('0' + month / 10);
    to[6] = (char)('0' + month % 10);
    to[7] = '-';
    memcpy(to + 8, from, 2);
    to[10] = 'T';
    memcpy(to + 11, from + 12, 8);
    memcpy(to + 19, from + 21, 3);
    to[22] = ':';
    memcpy(to + 23, from + 24, 2);
    to[25] = '\0';
    return true;
}

static bool number(const char **at, long long low, long long high, long long *value)
{
    char *end;
    if (**at < '0' || **at > '9')
        return false;
    *value = strtoll(*at, &end, 10);
    *at = end;
    return *value >= low && *value <= high;
}

/* "GET /path HTTP/1.1". What clients send that speak something else is the method, and there is no path. */
static void request(const char *text, access_line *line)
{
    line->method = word(&text);
    line->path = accept(&text, " ") ? word(&text) : NULL;
    line->method = line->method ? line->method : "";
    line->path = line->path ? line->path : "";
}

static const char *parse(const char **at, access_line *line)
{
    const char *user, *first_line;
    long long status;
    if (!(line->client = word(at)) || !accept(at, " "))
        return "a client";
    if (!word(at) || !accept(at, " "))
        return "an identity, mostly \"-\"";
    if (!(user = word(at)) || !accept(at, " "))
        return "a user, or \"-\"";
    if (!accept(at, "[") || !timestamp(at, line->time) || !accept(at, "] "))
        return "a time as [22/Nov/2026:10:56:13 +0100]";
    if (!(first_line = quoted(at)) || !accept(at, " "))
        return "a request in quotation marks";
    if (!number(at, 100, 599, &status) || !accept(at, " "))
        return "a status of 100 to 599";
    line->bytes = 0;
    if (!accept(at, "-") && !number(at, 0, INT64_MAX, &line->bytes))
        return "a number of bytes, or \"-\"";
    if (!accept(at, " ") || !(line->referer = quoted(at)))
        return "a referer in quotation marks";
    if (!accept(at, " ") || !(line->agent = quoted(at)))
        return "a user agent in quotation marks";

    line->user = or_absent(user);
    line->referer = or_absent(line->referer);
    line->agent = or_absent(line->agent);
    line->status = (int)status;
    request(first_line, line);
    return NULL;
}

const char *access_line_parse(const char *text, access_line *line, int *column)
{
    const char *at = text;
    const char *expected = parse(&at, line);
    *column = (int)(at - text) + 1;
    return expected;
}
