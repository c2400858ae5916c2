#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace mneme {

/// One file to fetch.
struct DownloadRequest {
  std::string url;
  std::string path;               ///< Where it goes; its folder is made when missing.
  std::string sha256;             ///< Expected digest, 64 hexadecimal digits, or empty.
  std::optional<uint64_t> bytes;  ///< Expected size, when known.
  std::string bearer_token;       ///< For the host of `url` only; may be empty.
  std::string known_etag;         ///< Of the file that is there already: an unchanged file is not sent again.
};

/// Bytes that this user may still write to the file system of `folder`. Throws Error(kIo).
uint64_t free_disk_bytes(const std::string& folder);

struct DownloadOptions {
  int retries = 5;                            ///< Attempts in a row that brought less than a megabyte, after the first.
  std::chrono::milliseconds first_wait{500};  ///< Before the first retry; doubles each time.
  uint64_t spare_bytes = uint64_t{64} << 20;  ///< Disk space to leave free.
  std::function<uint64_t(const std::string& folder)> free_bytes = free_disk_bytes;
  std::function<void(uint64_t done, uint64_t total)> on_progress;  ///< `total` is 0 while it is not known.
};

struct DownloadResult {
  uint64_t bytes = 0;         ///< Of the whole file.
  uint64_t resumed_from = 0;  ///< Bytes that an earlier attempt had brought.
  std::string sha256;         ///< Of the file.
  bool verified = false;      ///< The digest was known from the caller or the server, and agreed.
  bool not_modified = false;  ///< `known_etag` is still right; nothing was written.
  std::string etag;
};

/// Fetches a file so that it appears complete and checked, or not at all.
///
/// Bytes go to `path`.part, with the server's validator beside it in `path`.part.json. A download that broke off goes
/// on where it ended when the server still has the same file, and begins anew when it does not or knows no ranges.
/// Broken transfers and overloaded servers are tried again with growing waits. A second process that fetches the same
/// path is refused. Throws Error: kNotFound, kCorruptData for a wrong size or digest (the bytes are thrown away), kIo
/// for a full disk (before the transfer, with the numbers), refused access and failures that did not pass.
DownloadResult download_file(const DownloadRequest& request, const DownloadOptions& options);

}  // namespace mneme
