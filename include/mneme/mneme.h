#ifndef MNEME_MNEME_H
#define MNEME_MNEME_H

/* mneme's long-term memory for C and everything that can call C; link libmneme_c.so. docs/c-api.md has examples.
 *
 * - Text is UTF-8 and ends with a zero byte. Strings that come back belong to the caller: mneme_free().
 * - Every function that can fail returns a status; mneme_last_error() says what was wrong, in one line.
 * - Nothing is thrown across this border, and nothing is printed.
 * - A handle may be used from several threads: calls on it take turns. Several handles, in as many processes as wanted,
 *   may use one store.
 */

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MNEME_API __attribute__((visibility("default")))
#else
#define MNEME_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when functions are added; a change that breaks programs would get another name of the library. */
#define MNEME_API_VERSION 1
MNEME_API int mneme_api_version(void);

typedef enum mneme_status {
  MNEME_OK = 0,
  MNEME_INVALID_ARGUMENT = 1, /* The call makes no sense: a null pointer, bad UTF-8, a number out of range. */
  MNEME_CORRUPT_DATA = 2,     /* A file, or an answer of a server, breaks its own format. */
  MNEME_NOT_FOUND = 3,
  MNEME_UNSUPPORTED = 4,
  MNEME_OUT_OF_BUDGET = 5,    /* It does not fit memory_bytes, or the machine's memory. */
  MNEME_IO = 6,               /* The operating system, a database or a server refused. */
  MNEME_INTERNAL = 7          /* Anything else; please report it. */
} mneme_status;

/* What the last call on this thread that failed had to say; "" before the first. Valid until the next failure. */
MNEME_API const char* mneme_last_error(void);
/* Gives back a string that a function returned; NULL is fine. */
MNEME_API void mneme_free(char* text);

/* An open memory. */
typedef struct mneme_memory mneme_memory;

/* All zero (and struct_size) is a good start. */
typedef struct mneme_memory_options {
  size_t struct_size;    /* sizeof(mneme_memory_options); lets later versions add fields. */
  const char* store;     /* Path of an SQLite file, or "postgres://..."; NULL: the user's own store. Made when missing. */
  const char* embed;     /* Embedding model: GGUF file or "https://HOST/v1#MODEL"; NULL: search by words and names. */
  uint64_t memory_bytes; /* Most RAM for model, page cache and vector indexes together; 0: no limit. */
} mneme_memory_options;

MNEME_API mneme_status mneme_memory_open(const mneme_memory_options* options, mneme_memory** memory);
/* Also when another call on it has failed; NULL is fine. No call may be under way on another thread. */
MNEME_API void mneme_memory_close(mneme_memory* memory);

/* Whose memory: tenant and user are a key that no call reaches across; NULL means "default". Agent and session are
 * stored with records, and narrow searches; NULL: none. */
typedef struct mneme_owner {
  const char* tenant;
  const char* user;
  const char* agent;
  const char* session;
} mneme_owner;

/* Stores a text. What is known already is not stored twice. `id` (may be NULL) gets 16 characters; free it. */
MNEME_API mneme_status mneme_remember(mneme_memory* memory, const mneme_owner* owner, const char* text, char** id);
/* The same with all fields: a JSON object as `mneme cube show --json` prints it, of which "text" is enough, e.g.
 * {"text": "...", "kind": "fact", "tags": ["family"], "event_time": "2026-11-29T08:00:00Z", "metadata": {...}}.
 * Owner and id in it are ignored. */
MNEME_API mneme_status mneme_remember_json(mneme_memory* memory, const mneme_owner* owner, const char* record, char** id);

/* The best `k` records for a query that together have at most `token_budget` tokens (0: no limit; a token is estimated
 * as three bytes). `json` gets what `mneme recall --json --explain` prints; free it. */
MNEME_API mneme_status mneme_recall(mneme_memory* memory, const mneme_owner* owner, const char* query, size_t k,
                                    uint64_t token_budget, char** json);

/* Erases `n` records for good, in all versions, indexes and files; with `derived` also the texts made from them. The
 * store's files are read to prove it. `json` (may be NULL) gets what `mneme forget --verify --json` prints; free it. */
MNEME_API mneme_status mneme_forget(mneme_memory* memory, const mneme_owner* owner, const char* const* ids, size_t n,
                                    int derived, char** json);

#ifdef __cplusplus
}
#endif

#endif
