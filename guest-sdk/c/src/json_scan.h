/* The grammar of JSON (RFC 8259), walked through from the left to the right. */

#ifndef PELTON_JSON_SCAN_H
#define PELTON_JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>

/* How many objects and lists may lie in one another: the stack has an end. */
#define JSON_DEPTH_MAX 128

typedef struct json_scanner {
    const char *at, *end;
    bool is_too_deep; /* what went wrong, if something did: it stands where the first one too many begins */
} json_scanner;

void json_skip_space(json_scanner *s);

/* Passes this character, if it is the next one. */
bool json_accept(json_scanner *s, char wanted);

/* Passes a value. False, and stands where it went wrong, if there is none, or it is nested too deeply. */
bool json_check_value(json_scanner *s);

/* Passes a text, from behind its opening quotation mark. */
bool json_check_text(json_scanner *s);

/* Passes what follows `\u`: one character, which takes two of these escapes beyond U+FFFF; -1 if it is none. */
int32_t json_unicode_escape(json_scanner *s);

#endif
