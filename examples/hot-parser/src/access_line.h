/* A line of a web server's access log, in Combined Log Format:
 *
 *     203.0.113.7 - ada [22/Nov/2026:10:56:13 +0100] "GET /cart?id=7 HTTP/1.1" 200 5123 "https://shop.example/" "curl/8.5"
 *
 * What follows the user agent is passed over: some servers append fields of their own. */

#ifndef ACCESS_LINE_H
#define ACCESS_LINE_H

#include <stdbool.h>

typedef struct access_line {
    const char *client;
    const char *user; /* NULL if nobody was logged in */
    char time[26]; /* RFC 3339, with the server's offset */
    const char *method;
    const char *path;
    int status; /* 100 to 599 */
    long long bytes; /* of the response's body; "-" is 0 */
    const char *referer; /* NULL if none was sent */
    const char *agent; /* NULL if none was sent */
} access_line;

/* Takes a line apart. NULL, or what was expected where it could not go on; `column` counts from 1. */
const char *access_line_parse(const char *text, access_line *line, int *column);

#endif
