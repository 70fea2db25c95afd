/* JSON, written: all that printf lacks for it. */

#include <string.h>

#include "arena.h"
#include "pelton.h"
#include "utf8.h"

const char *pelton_json_quote(const char *text)
{
    static const char escapes[] = "\"\\bfnrt", meanings[] = "\"\\\b\f\n\r\t";
    size_t bytes = strlen(text);
    const char *end = text + bytes;
    char *quoted = arena_take(6 * bytes + 3, 1), *to = quoted;
    *to++ = '"';
    while (text < end) {
        const char *meaning = strchr(meanings, *text);
        size_t length = utf8_character(text, end);
        if (meaning) {
            *to++ = '\\';
            *to++ = escapes[meaning - meanings];
        } else if ((unsigned char)*text < 0x20) {
            memcpy(to, *text < 0x10 ? "\\u000" : "\\u001", 5);
            to[5] = "0123456789abcdef"[*text & 0xF];
            to += 6;
        } else if (length == 0) {
            memcpy(to, "\xEF\xBF\xBD", 3);
            to += 3;
        } else {
            memcpy(to, text, length);
            to += length;
        }
        text += length > 0 ? length : 1;
    }
    *to++ = '"';
    *to = '\0';
    return quoted;
}
