/* Memory of a call: taken piece by piece, given back all at once. */

#ifndef PELTON_ARENA_H
#define PELTON_ARENA_H

#include <stddef.h>

void *arena_take(size_t bytes, size_t align);

/* Where the next bytes would be taken from, and how many there are without asking for more memory. */
char *arena_room(size_t *bytes);

/* Says that the call is over: what comes next begins anew. */
void arena_end_call(void);

#endif
