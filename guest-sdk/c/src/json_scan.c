#include "json_scan.h"

#include <string.h>

#include "utf8.h"

void json_skip_space(json_scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

bool json_accept(json_scanner *s, char wanted)
{
    if (s->at == s->end || *s->at != wanted)
        return false;
    s->at++;
    return true;
}

static bool accept_word(json_scanner *s, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length) != 0)
        return false;
    s->at += length;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool check_digits(json_scanner *s)
{
    const char *begin = s->at;
    while (s->at < s->end && is_digit(*s->at))
        s->at++;
    return s->at > begin;
}

static bool check_number(json_scanner *s)
{
    json_accept(s, '-');
    if (!json_accept(s, '0') && !check_digits(s))
        return false;
    if (json_accept(s, '.') && !check_digits(s))
        return false;
    if (json_accept(s, 'e') || json_accept(s, 'E')) {
        if (!json_accept(s, '+'))
            json_accept(s, '-');
        return check_digits(s);
    }
    return true;
}

/* Four hexadecimal digits; -1 if these are none. */
static int32_t hex4(const char *at)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i], low = (char)(c | 0x20);
        if (!is_digit(c) && (low < 'a' || low > 'f'))
            return -1;
        value = value * 16 + (is_digit(c) ? c - '0' : low - 'a' + 10);
    }
    return value;
}

/* What follows `\u`: the character, two of them in a row for one beyond U+FFFF; -1 if it is none. */
int32_t json_unicode_escape(json_scanner *s)
{
    int32_t high = s->end - s->at < 4 ? -1 : hex4(s->at);
    if (high < 0xD800 || high > 0xDFFF) {
        s->at += high < 0 ? 0 : 4;
        return high;
    }
    int32_t low = high > 0xDBFF || s->end - s->at < 10 || memcmp(s->at + 4, "\\u", 2) != 0 ? -1 : hex4(s->at + 6);
    if (low < 0xDC00 || low > 0xDFFF)
        return -1;
    s->at += 10;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

/* What follows the opening quotation mark. */
bool json_check_text(json_scanner *s)
{
    while (s->at < s->end) {
        unsigned char c = (unsigned char)*s->at;
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c < 0x20)
            return false;
        if (c == '\\') {
            s->at++;
            if (json_accept(s, 'u')) {
                if (json_unicode_escape(s) < 0)
                    return false;
            } else if (s->at == s->end || !memchr("\"\\/bfnrt", *s->at, 8)) {
                return false;
            } else {
                s->at++;
            }
        } else {
            size_t length = utf8_character(s->at, s->end);
            if (length == 0)
                return false;
            s->at += length;
        }
    }
    return false;
}

static bool check_value(json_scanner *s, int depth);

static bool check_items(json_scanner *s, char close, int depth)
{
    json_skip_space(s);
    if (json_accept(s, close))
        return true;
    do {
        json_skip_space(s);
        if (close == '}') {
            if (!json_accept(s, '"') || !json_check_text(s))
                return false;
            json_skip_space(s);
            if (!json_accept(s, ':'))
                return false;
            json_skip_space(s);
        }
        if (!check_value(s, depth))
            return false;
        json_skip_space(s);
    } while (json_accept(s, ','));
    return json_accept(s, close);
}

static bool check_value(json_scanner *s, int depth)
{
    if (depth == JSON_DEPTH_MAX && s->at < s->end && (*s->at == '{' || *s->at == '[')) {
        s->is_too_deep = true;
        return false;
    }
    if (json_accept(s, '{'))
        return check_items(s, '}', depth + 1);
    if (json_accept(s, '['))
        return check_items(s, ']', depth + 1);
    if (json_accept(s, '"'))
        return json_check_text(s);
    return accept_word(s, "true") || accept_word(s, "false") || accept_word(s, "null") || check_number(s);
}

bool json_check_value(json_scanner *s)
{
    return check_value(s, 0);
}
