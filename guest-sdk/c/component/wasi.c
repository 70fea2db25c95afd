/* The system that the C library finds itself on.
 *
 * It is written for a system of files and clocks, the first preview of WASI, which a component cannot import. What can be
 * had in a handler is answered here: printed lines become log lines, the time of day is that of the event in hand, and the
 * rest of what printf, assert and the like need. Whatever else a program calls stays unresolved, so that building it
 * fails and names it: files, sockets, randomness.
 *
 * The linker takes these functions for the imports of the same names, and drops those that nothing calls. For abort and
 * __assert_fail to be taken instead of the C library's, they have to come before all that calls them: this library's
 * sources go to the linker before the handler's. */

#include "wasi.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"
#include "../src/host.h"
#include "../src/utf8.h"

/* The C library knows these functions by two names, one where it is written in C and one where it is written in Zig. */
#define WASI(name) __imported_wasi_snapshot_preview1_##name
#define ALSO_FOR_ZIG(name, ...)                                                                                        \
    int32_t zig_##name(__VA_ARGS__) __asm__(#name "|wasi_snapshot_preview1")                                           \
        __attribute__((alias("__imported_wasi_snapshot_preview1_" #name)))

enum { SUCCESS = 0, BAD_DESCRIPTOR = 8, NOT_SEEKABLE = 70, CHARACTER_DEVICE = 2 };

typedef struct console {
    pelton_level level;
    const char *context;
    size_t length;
    char line[1024];
} console;

/* Levels and contexts are those the host uses for programs that print to a WASI of its own. */
static console out = { .level = PELTON_INFO, .context = "stdout" };
static console err = { .level = PELTON_WARN, .context = "stderr" };

static void end_line(console *console)
{
    console->line[console->length] = '\0';
    console->length = 0;
    host_log(console->level, console->context, utf8_repaired(console->line));
}

/* What is longer than a line can be goes on in the next one, from a whole character on. */
static void break_line(console *console)
{
    char rest[4];
    const size_t begun = utf8_unfinished(console->line, console->line + console->length);
    console->length -= begun;
    memcpy(rest, console->line + console->length, begun);
    end_line(console);
    memcpy(console->line, rest, begun);
    console->length = begun;
}

void wasi_end_call(void)
{
    /* A line that is not UTF-8 takes memory to be said. If there is none, the trap comes back to here. */
    static bool is_ending;
    if (is_ending)
        return;
    is_ending = true;
    /* What stdio holds back until a newline comes: it would be in the next event's line, or in none. */
    fflush(NULL);
    if (out.length > 0)
        end_line(&out);
    if (err.length > 0)
        end_line(&err);
    is_ending = false;
}

typedef struct slice {
    const char *data;
    size_t length;
} slice;

int32_t WASI(fd_write)(int32_t descriptor, int32_t slices, int32_t count, int32_t written)
{
    console *console = descriptor == 1 ? &out : descriptor == 2 ? &err : NULL;
    if (!console)
        return BAD_DESCRIPTOR;
    size_t bytes = 0;
    const slice *part = (const slice *)(uintptr_t)slices;
    for (const slice *end = part + count; part < end; part++) {
        for (size_t i = 0; i < part->length; i++) {
            if (part->data[i] == '\n') {
                end_line(console);
                continue;
            }
            if (console->length == sizeof console->line - 1)
                break_line(console);
            console->line[console->length++] = part->data[i];
        }
        bytes += part->length;
    }
    *(size_t *)(uintptr_t)written = bytes;
    return SUCCESS;
}

/* A terminal, so that the C library hands over each line as it ends. */
int32_t WASI(fd_fdstat_get)(int32_t descriptor, int32_t status)
{
    uint8_t *bytes = (uint8_t *)(uintptr_t)status;
    memset(bytes, 0, 24);
    if (descriptor < 0 || descriptor > 2)
        return BAD_DESCRIPTOR;
    bytes[0] = CHARACTER_DEVICE;
    return SUCCESS;
}

/* Standard input is at its end. */
int32_t WASI(fd_read)(int32_t descriptor, int32_t slices, int32_t count, int32_t read)
{
    (void)slices, (void)count;
    *(size_t *)(uintptr_t)read = 0;
    return descriptor == 0 ? SUCCESS : BAD_DESCRIPTOR;
}

int32_t WASI(fd_seek)(int32_t descriptor, int64_t offset, int32_t whence, int32_t position)
{
    (void)descriptor, (void)offset, (void)whence, (void)position;
    return NOT_SEEKABLE;
}

int32_t WASI(fd_close)(int32_t descriptor)
{
    (void)descriptor;
    return SUCCESS;
}

int32_t WASI(clock_time_get)(int32_t clock, int64_t precision, int32_t time)
{
    (void)precision;
    *(uint64_t *)(uintptr_t)time = clock == 0 ? contract_time_ms * 1000000 : 0;
    return SUCCESS;
}

int32_t WASI(environ_sizes_get)(int32_t count, int32_t bytes)
{
    *(size_t *)(uintptr_t)count = 0;
    *(size_t *)(uintptr_t)bytes = 0;
    return SUCCESS;
}

int32_t WASI(environ_get)(int32_t variables, int32_t bytes)
{
    (void)variables, (void)bytes;
    return SUCCESS;
}

ALSO_FOR_ZIG(fd_write, int32_t, int32_t, int32_t, int32_t);
ALSO_FOR_ZIG(fd_fdstat_get, int32_t, int32_t);
ALSO_FOR_ZIG(fd_read, int32_t, int32_t, int32_t, int32_t);
ALSO_FOR_ZIG(fd_seek, int32_t, int64_t, int32_t, int32_t);
ALSO_FOR_ZIG(fd_close, int32_t);
ALSO_FOR_ZIG(clock_time_get, int32_t, int64_t, int32_t);
ALSO_FOR_ZIG(environ_sizes_get, int32_t, int32_t);
ALSO_FOR_ZIG(environ_get, int32_t, int32_t);

/* These two say more of what happened than the C library's would. */
PELTON_NEVER_RETURNS void __assert_fail(const char *expression, const char *file, int line, const char *function);

void __assert_fail(const char *expression, const char *file, int line, const char *function)
{
    const char *slash = strrchr(file, '/');
    host_panic(pelton_format("assertion failed: %s (in %s, at %s:%d)", expression, function, slash ? slash + 1 : file, line));
}

void abort(void)
{
    host_panic("abort() was called");
}

PELTON_NEVER_RETURNS void WASI(proc_exit)(int32_t status)
{
    host_panic(pelton_format("exit(%d) was called", (int)status));
}
