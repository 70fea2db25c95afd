#ifndef PELTON_WASI_H
#define PELTON_WASI_H

/* Writes the rest of what was printed without a newline at its end. To be called before whatever ends a call. */
void wasi_end_call(void);

#endif
