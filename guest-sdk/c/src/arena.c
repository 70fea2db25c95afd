/* Blocks of memory, filled from the first to the last. They are kept when a call ends, so that after a few calls a
 * handler asks for no more.
 *
 * The blocks come from the system, not from malloc: a handler that does without malloc does not carry it. Both can be
 * used side by side, and what malloc gave outlives the call. */

#include "arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "host.h"

#define PAGE ((size_t)64 * 1024)
#define STEP_MAX (16 * PAGE)

typedef struct block {
    struct block *next;
    char *end;
} block;

static block *first, *last, *current;
static char *at;
static bool call_is_over;

#ifdef __wasm__

static char *more_pages(size_t pages)
{
    size_t before = __builtin_wasm_memory_grow(0, pages);
    return before == SIZE_MAX ? NULL : (char *)(before * PAGE);
}

#else

#include <stdlib.h>

static char *more_pages(size_t pages)
{
    return malloc(pages * PAGE);
}

#endif

static char *begin_of(block *block)
{
    return (char *)(block + 1);
}

static char *aligned(char *pointer, size_t align)
{
    return (char *)(((uintptr_t)pointer + align - 1) & ~(uintptr_t)(align - 1));
}

/* Says so without taking any. */
PELTON_NEVER_RETURNS static void out_of_memory(size_t bytes)
{
    char message[100];
    snprintf(message, sizeof message, "out of memory: there are no %zu bytes more; see limits.memory", bytes);
    host_log(PELTON_CRITICAL, "panic", message);
    host_trap();
}

/* Asks for as much as there is already, within limits, so that many small pieces do not ask often. */
static void add_block(size_t bytes)
{
    static size_t step = PAGE;
    size_t wanted = bytes + sizeof(block);
    if (wanted < step)
        wanted = step;
    if (step < STEP_MAX)
        step *= 2;

    size_t pages = wanted / PAGE + (wanted % PAGE != 0);
    char *memory = more_pages(pages);
    if (!memory)
        out_of_memory(bytes);
    if (last && memory == last->end) {
        last->end += pages * PAGE;
        return;
    }
    block *added = (block *)(void *)memory;
    *added = (block){ .next = NULL, .end = memory + pages * PAGE };
    if (last)
        last->next = added;
    else
        first = added;
    last = added;
}

void *arena_take(size_t bytes, size_t align)
{
    /* No sum below gets so large that it begins again at 0. */
    if (bytes > SIZE_MAX - 2 * PAGE)
        out_of_memory(bytes);
    if (call_is_over) {
        call_is_over = false;
        current = first;
        at = first ? begin_of(first) : NULL;
    }
    for (;;) {
        if (current) {
            char *taken = aligned(at, align);
            if (taken <= current->end && bytes <= (size_t)(current->end - taken)) {
                at = taken + bytes;
                return taken;
            }
        }
        if (current == last)
            add_block(bytes + align);
        if (!current || current != last) {
            current = current ? current->next : first;
            at = begin_of(current);
        }
    }
}

char *arena_room(size_t *bytes)
{
    arena_take(0, 1);
    *bytes = (size_t)(current->end - at);
    return at;
}

void arena_end_call(void)
{
    call_is_over = true;
}

#ifdef __wasm__

#include <string.h>

/* Called by the host for all that it hands over. A NUL byte goes behind it, so that texts are C strings. */
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_bytes, size_t align, size_t bytes);

void *cabi_realloc(void *old, size_t old_bytes, size_t align, size_t bytes)
{
    char *memory = arena_take(bytes + 1, align);
    if (old_bytes > 0)
        memcpy(memory, old, old_bytes < bytes ? old_bytes : bytes);
    memory[bytes] = '\0';
    return memory;
}

#endif
