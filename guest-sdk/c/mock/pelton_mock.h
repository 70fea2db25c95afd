/* Plays the host, so that a handler can be tried as an ordinary program, with the system's compiler, debugger and
 * sanitizers. A test includes the handler's source and calls its function through here:
 *
 *     #include <pelton_mock.h>
 *     #include "../src/handler.c"
 *
 *     int main(void)
 *     {
 *         pelton_mock_config("greeting", "Moin");
 *         pelton_result result = pelton_mock_handle(handle, &(pelton_event){ .kind = "visit", .key = "ada" });
 *         assert(result.outcome == PELTON_OK);
 *         assert(strcmp(pelton_mock_emitted(0)->stream, "greetings") == 0);
 *         assert(strcmp(pelton_mock_state("visits/ada"), "1") == 0);
 *     }
 *
 * As in the real host, what a failed call emitted and stored is thrown away. The limits on sizes are not played. */

#ifndef PELTON_MOCK_H
#define PELTON_MOCK_H

#include "pelton.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef pelton_result pelton_handler(const pelton_event *event);
typedef pelton_result pelton_batch_handler(const pelton_event *events, size_t count);

/* Handles an event. Texts of it that are left out (NULL) are empty, all but the key. A panic is a transient error, as it
 * is for the host; a failed assert() ends the test, as everywhere. */
pelton_result pelton_mock_handle(pelton_handler *handler, const pelton_event *event);

/* Handles a batch. If it fails, the effects up to the last pelton_progress_handled() stay. As in the real host, more than
 * there are is all of them, fewer than before is no news, and of none there is nothing to keep. */
pelton_result pelton_mock_handle_batch(pelton_batch_handler *handler, const pelton_event *events, size_t count);

typedef struct pelton_mock_event {
    const char *stream;
    pelton_new_event event; /* its payload as bytes, followed by a NUL byte */
} pelton_mock_event;

typedef struct pelton_mock_line {
    pelton_level level;
    const char *context, *message;
} pelton_mock_line;

/* What was done since the beginning, or since the last reset: NULL beyond the end. */
const pelton_mock_event *pelton_mock_emitted(size_t number);
const pelton_mock_line *pelton_mock_logged(size_t number);

/* The value under this key of the state, NULL if there is none. It can be set with pelton_state_set(). */
const char *pelton_mock_state(const char *key);

/* How many events were said to be handled by the last batch, and how often a commit was asked for. */
size_t pelton_mock_progress(void);
size_t pelton_mock_commits(void);

/* Gives the handler a setting. */
void pelton_mock_config(const char *key, const char *value);

/* From now on, emitting to this stream is refused for this reason. */
void pelton_mock_refuse(const char *stream, const char *reason);

/* Forgets everything. */
void pelton_mock_reset(void);

#ifdef __cplusplus
}
#endif

#endif
