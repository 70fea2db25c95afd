#ifndef PELTON_UTF8_H
#define PELTON_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* How many bytes the character at `at` has; 0 if what stands there is not well-formed UTF-8. */
size_t utf8_character(const char *at, const char *end);

/* How many bytes at the end begin a character that would go on behind it. */
size_t utf8_unfinished(const char *begin, const char *end);

bool utf8_is_text(const char *text);

/* The text, with U+FFFD in place of what is not UTF-8. The host takes nothing else. */
const char *utf8_repaired(const char *text);

#endif
