/* What this library needs of the host: component/contract.c asks the real one, mock/pelton_mock.c plays it. */

#ifndef PELTON_HOST_H
#define PELTON_HOST_H

#include "pelton.h"

/* These two return NULL, or why the host refused. */
const char *host_emit(const char *stream, const pelton_new_event *event);
const char *host_state_set(const char *key, pelton_bytes value);

bool host_state_get(const char *key, pelton_bytes *value);
void host_state_delete(const char *key);

/* Returns NULL if there is no value; sets `failure` if it could not be looked up. */
const char *host_config_get(const char *key, const char **failure);

void host_log(pelton_level level, const char *context, const char *message);

/* Ends the call, after its reason was logged. */
PELTON_NEVER_RETURNS void host_trap(void);

/* Logs the reason and ends the call. */
PELTON_NEVER_RETURNS void host_panic(const char *message);

#endif
