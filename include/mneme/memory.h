#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// Long-term memory for programs that embed mneme: link mneme_recall. Everything beyond these calls is in
/// src/recall/store.h and its neighbours; both may be used on one store at once. All functions throw mneme::Error
/// (base/error.h). Not thread-safe: one Memory a thread, as many as wanted on one store.
class Memory {
 public:
  /// Opens or makes a store: the path of an SQLite file, or "postgres://...".
  explicit Memory(const std::string& location);
  Memory(Memory&&) noexcept;
  Memory& operator=(Memory&&) noexcept;
  ~Memory();

  /// Whose memory; no call reaches across tenant and user.
  struct Owner {
    std::string user = "default", tenant = "default";
  };

  /// Stores a text; what is known already is not stored twice. Returns the id.
  std::string remember(const Owner& owner, std::string_view text, const std::vector<std::string>& tags = {});

  struct Found {
    std::string id, text;
    double score = 0;
    int64_t event_time_us = 0;  ///< Microseconds since 1970.
    std::vector<std::string> tags;
  };
  /// The best `k` memories for a query, within a token budget when one is given.
  std::vector<Found> recall(const Owner& owner, std::string_view query, size_t k = 10,
                            std::optional<uint64_t> token_budget = {});

  /// Erases memories for good, in all versions and indexes, and reads the files to prove it.
  void forget(const Owner& owner, const std::vector<std::string>& ids);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme
