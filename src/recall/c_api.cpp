// The C interface, include/mneme/mneme.h. Every function catches everything.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "mneme/mneme.h"
#include "recall/open_embedder.h"
#include "recall/result_json.h"
#include "recall/store.h"

namespace {

using mneme::Error;
using mneme::ErrorCode;
namespace recall = mneme::recall;

thread_local std::string t_error;

mneme_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kContextOverflow:
      return MNEME_INVALID_ARGUMENT;
    case ErrorCode::kCorruptData:
      return MNEME_CORRUPT_DATA;
    case ErrorCode::kNotFound:
      return MNEME_NOT_FOUND;
    case ErrorCode::kUnsupported:
      return MNEME_UNSUPPORTED;
    case ErrorCode::kOutOfBudget:
      return MNEME_OUT_OF_BUDGET;
    case ErrorCode::kIo:
    case ErrorCode::kCancelled:
      return MNEME_IO;
  }
  return MNEME_INTERNAL;
}

/// Notes what was wrong; without memory even for that, the text before stays.
mneme_status refused(mneme_status status, const char* what, const char* hint = "") noexcept {
  try {
    t_error = what;
    if (*hint != '\0') t_error += std::string(" (") + hint + ")";
  } catch (...) {
  }
  return status;
}

template <typename Body>
mneme_status guarded(Body body) noexcept {
  try {
    body();
    return MNEME_OK;
  } catch (const Error& e) {
    return refused(status_of(e.code()), e.what(), e.hint().c_str());
  } catch (const std::bad_alloc&) {
    return refused(MNEME_OUT_OF_BUDGET, "[memory] the machine has no memory left");
  } catch (const std::exception& e) {
    return refused(MNEME_INTERNAL, e.what());
  } catch (...) {
    return refused(MNEME_INTERNAL, "[memory] an unknown error");
  }
}

void expect(const void* pointer, const char* what) {
  if (pointer == nullptr) mneme::fail(ErrorCode::kInvalidArgument, "[memory] {}: expected a pointer, found NULL", what);
}

char* copied(const std::string& text) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

recall::Scope scope_of(const mneme_owner* owner) {
  recall::Scope scope;
  if (owner == nullptr) return scope;
  const auto take = [](std::string& to, const char* from) {
    if (from != nullptr) to = from;
  };
  take(scope.tenant, owner->tenant);
  take(scope.user, owner->user);
  take(scope.agent, owner->agent);
  take(scope.session, owner->session);
  return scope;
}

/// A record from the fields that a caller gave, with the defaults of all others.
recall::Record record_of(const char* text, const recall::Scope& scope) {
  try {
    mneme::Json json = mneme::parse_json(text, "record");
    if (!json.is_object()) mneme::fail(ErrorCode::kInvalidArgument, "[remember] expected a JSON object");
    const bool has_time = json.contains("event_time");
    const mneme::Json defaults = {{"kind", "fact"}, {"text", ""}, {"event_time", "1970-01-01"}};
    for (const auto& [key, value] : defaults.items()) {
      if (!json.contains(key)) json[key] = value;
    }
    json["id"] = recall::new_record_id();
    json["version"] = 1;
    json["state"] = "active";
    json["tenant"] = scope.tenant;
    json["user"] = scope.user;
    json["recorded_at"] = "1970-01-01";
    recall::Record record = recall::record_from_json(json, "record");
    if (!has_time) record.event_time = 0;
    if (!scope.agent.empty()) record.scope.agent = scope.agent;
    if (!scope.session.empty()) record.scope.session = scope.session;
    return record;
  } catch (const Error& e) {
    throw Error(ErrorCode::kInvalidArgument, e.what(), e.hint());
  }
}

}  // namespace

/// Destroyed from the bottom: the store before what it uses.
struct mneme_memory {
  std::mutex turn;
  std::unique_ptr<mneme::Ledger> ledger;
  std::unique_ptr<recall::Embedder> embedder;
  std::unique_ptr<recall::Store> store;
};

extern "C" {

int mneme_api_version(void) {
  return MNEME_API_VERSION;
}

const char* mneme_last_error(void) {
  return t_error.c_str();
}

void mneme_free(char* text) {
  std::free(text);
}

mneme_status mneme_memory_open(const mneme_memory_options* options, mneme_memory** memory) {
  return guarded([&] {
    expect(memory, "memory");
    *memory = nullptr;
    mneme_memory_options given{};
    if (options != nullptr) {
      if (options->struct_size < sizeof(given)) {  // all versions of the struct begin with today's fields
        mneme::fail(ErrorCode::kInvalidArgument, "[open memory] struct_size: expected {}, found {}", sizeof(given),
                    options->struct_size);
      }
      given = *options;
    }
    auto opened = std::make_unique<mneme_memory>();
    recall::StoreOptions with;
    opened->ledger = std::make_unique<mneme::Ledger>();
    with.ledger = opened->ledger.get();
    if (given.memory_bytes > 0) {
      opened->ledger->set_limit(mneme::Tier::kRam, given.memory_bytes);
      with.cache_bytes = std::min(with.cache_bytes, given.memory_bytes / 8);
      with.index_bytes = given.memory_bytes;
    }
    if (given.embed != nullptr) {
      opened->embedder = recall::open_embedder(given.embed, *opened->ledger);
      with.embedder = opened->embedder.get();
    }
    opened->store = recall::Store::open(given.store != nullptr ? given.store : recall::default_store_path(), with);
    *memory = opened.release();
  });
}

void mneme_memory_close(mneme_memory* memory) {
  guarded([&] { delete memory; });
}

mneme_status mneme_remember(mneme_memory* memory, const mneme_owner* owner, const char* text, char** id) {
  return guarded([&] {
    expect(memory, "memory");
    expect(text, "text");
    if (id != nullptr) *id = nullptr;
    const std::lock_guard turn(memory->turn);
    recall::Record record;
    record.kind = recall::Kind::kFact;
    record.scope = scope_of(owner);
    record.text = text;
    const recall::Added added = memory->store->add(record);
    if (id != nullptr) *id = copied(added.id);
  });
}

mneme_status mneme_remember_json(mneme_memory* memory, const mneme_owner* owner, const char* record, char** id) {
  return guarded([&] {
    expect(memory, "memory");
    expect(record, "record");
    if (id != nullptr) *id = nullptr;
    const std::lock_guard turn(memory->turn);
    const recall::Added added = memory->store->add(record_of(record, scope_of(owner)));
    if (id != nullptr) *id = copied(added.id);
  });
}

mneme_status mneme_recall(mneme_memory* memory, const mneme_owner* owner, const char* query, size_t k,
                          uint64_t token_budget, char** json) {
  return guarded([&] {
    expect(memory, "memory");
    expect(query, "query");
    expect(json, "json");
    *json = nullptr;
    const std::lock_guard turn(memory->turn);
    recall::Query asked;
    asked.text = query;
    asked.scope = scope_of(owner);
    asked.k = k;
    if (token_budget > 0) asked.token_budget = token_budget;
    const recall::SearchResult result = search(*memory->store, asked);
    std::vector<std::string> ids;
    for (const recall::Hit& hit : result.hits) ids.push_back(hit.record.id);
    memory->store->touch(asked.scope, ids);
    *json = copied(recall::to_json(result, true).dump());
  });
}

mneme_status mneme_forget(mneme_memory* memory, const mneme_owner* owner, const char* const* ids, size_t n, int derived,
                          char** json) {
  return guarded([&] {
    expect(memory, "memory");
    if (n > 0) expect(ids, "ids");
    if (json != nullptr) *json = nullptr;
    std::vector<std::string> list;
    for (size_t i = 0; i < n; ++i) {
      expect(ids[i], "ids");
      list.emplace_back(ids[i]);
    }
    const std::lock_guard turn(memory->turn);
    const recall::EraseOptions options{derived != 0, true, false};
    const recall::Erasure erasure = erase(*memory->store, scope_of(owner), list, options);
    if (json != nullptr) *json = copied(recall::to_json(erasure, options).dump());
  });
}

}  // extern "C"
