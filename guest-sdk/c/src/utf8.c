#include "utf8.h"

#include <string.h>

#include "pelton.h"

size_t utf8_character(const char *at, const char *end)
{
    const unsigned char *byte = (const unsigned char *)at;
    size_t room = (size_t)(end - at);
    if (room == 0)
        return 0;
    if (byte[0] < 0x80)
        return 1;

    /* The first byte tells the length; after some, the second one has a narrower range, which keeps out what could be
     * written shorter, surrogates, and what is beyond U+10FFFF. */
    size_t length = byte[0] < 0xE0 ? 2 : byte[0] < 0xF0 ? 3 : 4;
    unsigned low = byte[0] == 0xE0 ? 0xA0 : byte[0] == 0xF0 ? 0x90 : 0x80;
    unsigned high = byte[0] == 0xED ? 0x9F : byte[0] == 0xF4 ? 0x8F : 0xBF;
    if (byte[0] < 0xC2 || byte[0] > 0xF4 || room < length || byte[1] < low || byte[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((byte[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

size_t utf8_unfinished(const char *begin, const char *end)
{
    for (size_t back = 1; back <= 3 && back <= (size_t)(end - begin); back++) {
        const unsigned char byte = (unsigned char)end[-(ptrdiff_t)back];
        if ((byte & 0xC0) == 0x80)
            continue;
        size_t length = byte < 0xC2 || byte > 0xF4 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
        return length > back ? back : 0;
    }
    return 0;
}

bool utf8_is_text(const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        size_t length = utf8_character(text, end);
        if (length == 0)
            return false;
        text += length;
    }
    return true;
}

const char *utf8_repaired(const char *text)
{
    if (utf8_is_text(text))
        return text;
    size_t bytes = strlen(text);
    const char *end = text + bytes;
    char *repaired = pelton_alloc(3 * bytes + 1), *to = repaired;
    while (text < end) {
        size_t length = utf8_character(text, end);
        if (length == 0) {
            memcpy(to, "\xEF\xBF\xBD", 3);
            to += 3;
            text += 1;
        } else {
            memcpy(to, text, length);
            to += length;
            text += length;
        }
    }
    *to = '\0';
    return repaired;
}
