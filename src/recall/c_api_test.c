/* The C interface from C11, end to end; ends with 0 when all is well. */
#define _POSIX_C_SOURCE 200809L
#include <mneme/mneme.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPECT(condition)                                                                     \
  do {                                                                                        \
    if (!(condition)) {                                                                       \
      fprintf(stderr, "line %d: expected %s (%s)\n", __LINE__, #condition, mneme_last_error()); \
      exit(1);                                                                                \
    }                                                                                         \
  } while (0)

int main(void) {
  char folder[] = "/tmp/mneme-c-api-XXXXXX";
  EXPECT(mkdtemp(folder) != NULL);
  char path[64];
  snprintf(path, sizeof path, "%s/memory.db", folder);

  EXPECT(mneme_api_version() == MNEME_API_VERSION);
  EXPECT(strcmp(mneme_last_error(), "") == 0);
  mneme_memory_options options = {0};
  mneme_memory* memory = NULL;
  EXPECT(mneme_memory_open(&options, &memory) == MNEME_INVALID_ARGUMENT && memory == NULL);
  EXPECT(strstr(mneme_last_error(), "struct_size") != NULL);
  options.struct_size = sizeof options;
  options.store = path;
  options.memory_bytes = 1000;
  EXPECT(mneme_memory_open(&options, NULL) == MNEME_INVALID_ARGUMENT);
  options.memory_bytes = 64 << 20;
  EXPECT(mneme_memory_open(&options, &memory) == MNEME_OK && memory != NULL);

  const mneme_owner bo = {NULL, "bo", NULL, NULL}, eve = {NULL, "eve", NULL, NULL};
  char *id = NULL, *again = NULL, *other = NULL, *json = NULL;
  EXPECT(mneme_remember(memory, &bo, "Ann's daughter is called Mia", &id) == MNEME_OK);
  EXPECT(id != NULL && strlen(id) == 16);
  EXPECT(mneme_remember(memory, &bo, "Ann's daughter is called Mia", &again) == MNEME_OK);
  EXPECT(strcmp(id, again) == 0);
  EXPECT(mneme_remember_json(memory, &bo, "{\"text\": \"Mia plays the cello\", \"tags\": [\"music\"]}", &other) == MNEME_OK);
  EXPECT(mneme_remember(memory, &bo, NULL, NULL) == MNEME_INVALID_ARGUMENT);
  EXPECT(mneme_remember(memory, &bo, "\xFF", NULL) == MNEME_INVALID_ARGUMENT);
  EXPECT(mneme_remember_json(memory, &bo, "{\"text\": 5}", NULL) == MNEME_INVALID_ARGUMENT);
  EXPECT(mneme_remember_json(memory, &bo, "no JSON", NULL) == MNEME_INVALID_ARGUMENT);

  EXPECT(mneme_recall(memory, &bo, "who is the daughter of Ann?", 10, 0, &json) == MNEME_OK);
  EXPECT(strstr(json, "called Mia") != NULL && strstr(json, id) != NULL);
  mneme_free(json);
  EXPECT(mneme_recall(memory, &bo, "cello", 1, 0, &json) == MNEME_OK);
  EXPECT(strstr(json, "\"music\"") != NULL && strstr(json, "called Mia") == NULL);
  mneme_free(json);
  EXPECT(mneme_recall(memory, &bo, "Mia", 10, 1, &json) == MNEME_OK);
  EXPECT(strstr(json, "\"hits\":[]") != NULL);
  mneme_free(json);
  EXPECT(mneme_recall(memory, &eve, "daughter", 10, 0, &json) == MNEME_OK);
  EXPECT(strstr(json, "\"hits\":[]") != NULL);
  mneme_free(json);

  const char* ids[] = {id};
  EXPECT(mneme_forget(memory, &eve, ids, 1, 0, NULL) == MNEME_NOT_FOUND);
  EXPECT(mneme_forget(memory, &bo, ids, 1, 0, &json) == MNEME_OK);
  EXPECT(strstr(json, "\"verified\"") != NULL && strstr(json, id) != NULL);
  mneme_free(json);
  EXPECT(mneme_recall(memory, &bo, "daughter", 10, 0, &json) == MNEME_OK);
  EXPECT(strstr(json, "\"hits\":[]") != NULL);
  mneme_free(json);
  EXPECT(mneme_forget(memory, &bo, ids, 1, 0, NULL) == MNEME_NOT_FOUND);

  mneme_free(id);
  mneme_free(again);
  mneme_free(other);
  mneme_free(NULL);
  mneme_memory_close(memory);
  mneme_memory_close(NULL);

  /* What was stored is there for the next one. */
  EXPECT(mneme_memory_open(&options, &memory) == MNEME_OK);
  EXPECT(mneme_recall(memory, &bo, "cello", 1, 0, &json) == MNEME_OK);
  EXPECT(strstr(json, "plays the cello") != NULL);
  mneme_free(json);
  mneme_memory_close(memory);
  const char* ends[] = {"", "-wal", "-shm"};
  for (size_t i = 0; i < 3; ++i) {
    char file[80];
    snprintf(file, sizeof file, "%s%s", path, ends[i]);
    unlink(file);
  }
  rmdir(folder);
  return 0;
}
