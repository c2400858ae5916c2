#include "weights/store/download.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/byte_size.h"
#include "base/checked_math.h"
#include "base/error.h"
#include "weights/store/http_client.h"
#include "weights/store/part_file.h"

namespace mneme {
namespace {

constexpr uint64_t kProgressBytes = uint64_t{1} << 20;
constexpr std::chrono::seconds kLongestWait{60};

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

bool is_strong_etag(const std::string& etag) {
  return !etag.empty() && !etag.starts_with("W/");
}

std::string without_quotes(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

std::string lower_hex(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

/// "bytes 5-9/10": first byte and size of the whole file.
struct ContentRange {
  uint64_t first;
  std::optional<uint64_t> total;
};

std::optional<ContentRange> parse_content_range(const std::string* header) {
  if (header == nullptr || !header->starts_with("bytes ")) return std::nullopt;
  const std::string_view text = std::string_view(*header).substr(6);
  const size_t dash = text.find('-');
  const size_t slash = text.find('/');
  if (dash == text.npos || slash == text.npos || slash < dash) return std::nullopt;
  const auto first = parse_decimal(text.substr(0, dash));
  if (!first) return std::nullopt;
  return ContentRange{*first, parse_decimal(text.substr(slash + 1))};
}

class Download final : public HttpSink {
 public:
  Download(const DownloadRequest& request, const DownloadOptions& options)
      : request_(request), options_(options), part_(request.path) {}

  DownloadResult run() {
    resume_earlier();
    result_.resumed_from = part_.size();
    int failures = 0;
    std::chrono::milliseconds wait = options_.first_wait;
    while (true) {
      const uint64_t before = part_.size();
      const std::string failure = attempt();
      if (result_.not_modified) {
        part_.discard();
        return result_;
      }
      if (failure.empty()) break;
      if (part_.size() >= before + kProgressBytes) {
        failures = 0;
        wait = options_.first_wait;
      }
      if (++failures > options_.retries) {
        throw Error(ErrorCode::kIo, fmt::format("[pull] {}: {} ({} attempts)", request_.url, failure, failures),
                    fmt::format("{} are kept, run it again to go on", format_byte_size(part_.size())));
      }
      std::this_thread::sleep_for(std::min<std::chrono::milliseconds>(std::max(wait, retry_after_), kLongestWait));
      wait *= 2;
    }
    return finish();
  }

  void begin(const HttpResponse& response) override {
    writes_ = false;
    switch (response.status) {
      case 200:
        begin_whole(response);
        break;
      case 206:
        begin_rest(response);
        break;
      case 304:
        result_.not_modified = !request_.known_etag.empty();
        break;
      default:
        return;  // attempt() reads the status.
    }
    if (!result_.not_modified) check_and_remember(response);
  }

  void body(std::span<const std::byte> bytes) override {
    if (!writes_) return;
    if (state_.total && bytes.size() > *state_.total - part_.size()) {
      fail(ErrorCode::kCorruptData, "[pull] {}: the server sent more than the {} bytes it promised", request_.url,
           *state_.total);
    }
    part_.append(bytes);
    report();
  }

 private:
  void resume_earlier() {
    const auto state = part_.load_state();
    const bool usable = state && state->url == request_.url && !state->validator.empty() &&
                        (!state->total || part_.size() <= *state->total);
    if (!usable) {
      part_.restart();
      return;
    }
    state_ = *state;
    part_.hash_existing();
  }

  /// One request; what went wrong if it may pass, else empty when the file is complete.
  std::string attempt() {
    retry_after_ = std::chrono::milliseconds(0);
    if (part_.size() > 0 && state_.total == part_.size()) return {};
    std::vector<std::string> headers;
    if (part_.size() > 0) {
      headers.push_back(fmt::format("Range: bytes={}-", part_.size()));
      headers.push_back(fmt::format("If-Range: {}", state_.validator));
    } else if (!request_.known_etag.empty()) {
      headers.push_back(fmt::format("If-None-Match: {}", request_.known_etag));
    }
    if (!request_.bearer_token.empty())
      headers.push_back(fmt::format("Authorization: Bearer {}", request_.bearer_token));
    changed_ = false;
    const HttpResponse response = client_.get(request_.url, headers, *this);
    if (!response.failure.empty()) return forget_unless_resumable(response.failure);
    return read_status(response);
  }

  /// Bytes without a validator are of no use to the next attempt.
  std::string forget_unless_resumable(const std::string& failure) {
    if (state_.validator.empty()) part_.restart();
    return failure;
  }

  std::string read_status(const HttpResponse& response) {
    switch (response.status) {
      case 200:
      case 206:
        if (changed_) return restart("the file changed on the server");
        if (state_.total && part_.size() < *state_.total) {
          return forget_unless_resumable(
              fmt::format("the server ended after {} of {} bytes", part_.size(), *state_.total));
        }
        return {};
      case 304:
        if (result_.not_modified) return {};
        break;
      case 416:
        return restart("the server no longer has the range");
      case 401:
      case 403:
        throw Error(ErrorCode::kIo, fmt::format("[pull] {}: access refused (HTTP {})", request_.url, response.status),
                    "a gated or private file needs a token in HF_TOKEN; a misspelt name gives the same answer");
      case 404:
      case 410:
        fail(ErrorCode::kNotFound, "[pull] {}: not found (HTTP {})", request_.url, response.status);
      case 408:
      case 429:
      case 500:
      case 502:
      case 503:
      case 504:
        if (const auto* after = response.header("retry-after")) {
          const uint64_t seconds = parse_decimal(*after).value_or(0);
          retry_after_ = std::chrono::seconds(std::min<uint64_t>(seconds, 60));
        }
        return fmt::format("HTTP {}", response.status);
      default:
        break;
    }
    fail(ErrorCode::kIo, "[pull] {}: unexpected answer, HTTP {}", request_.url, response.status);
  }

  std::string restart(std::string reason) {
    part_.restart();
    state_ = {};
    result_.resumed_from = 0;
    return reason;
  }

  /// The server sends all of the file: the first time, because it changed, or because it knows no ranges.
  void begin_whole(const HttpResponse& response) {
    if (part_.size() > 0) part_.restart();
    result_.resumed_from = 0;
    state_ = {request_.url, {}, response.content_length(), {}};
    if (const auto* etag = response.header("etag")) {
      result_.etag = *etag;
      if (is_strong_etag(*etag)) state_.validator = *etag;
    }
    const auto* modified = response.header("last-modified");
    if (state_.validator.empty() && modified != nullptr) state_.validator = *modified;
    writes_ = true;
  }

  void begin_rest(const HttpResponse& response) {
    const auto range = parse_content_range(response.header("content-range"));
    const auto* etag = response.header("etag");
    changed_ = !range || range->first != part_.size() ||
               (state_.total && range->total && *range->total != *state_.total) ||
               (etag != nullptr && is_strong_etag(state_.validator) && state_.validator.starts_with('"') &&
                *etag != state_.validator);
    if (changed_) return;
    if (etag != nullptr) result_.etag = *etag;
    if (range->total) state_.total = range->total;
    writes_ = true;
  }

  void check_and_remember(const HttpResponse& response) {
    if (changed_) return;
    state_.sha256 = announced_sha256(response);
    if (request_.bytes && state_.total && *request_.bytes != *state_.total) {
      fail(ErrorCode::kCorruptData, "[pull] {}: expected {} bytes, the server has {}", request_.url, *request_.bytes,
           *state_.total);
    }
    check_space();
    part_.save_state(state_);
    report();
  }

  /// A digest that the server gives as the file's tag, as hubs do.
  static std::string announced_sha256(const HttpResponse& response) {
    const auto linked = response.first_headers.find("x-linked-etag");
    const std::string* const own = response.header("etag");
    for (const std::string* etag : {linked == response.first_headers.end() ? nullptr : &linked->second, own}) {
      if (etag != nullptr && is_sha256_hex(without_quotes(*etag))) return lower_hex(without_quotes(*etag));
    }
    return {};
  }

  void check_space() {
    if (!state_.total) return;
    const std::string folder = folder_of(request_.path);
    const uint64_t missing = *state_.total - std::min(*state_.total, part_.size());
    const uint64_t needed = checked_add(missing, options_.spare_bytes).value_or(UINT64_MAX);
    const uint64_t free = options_.free_bytes(folder);
    if (free >= needed) return;
    throw Error(
        ErrorCode::kIo,
        fmt::format("[pull] {} more bytes ({}) and {} to spare do not fit on the disk of {}, which has {} ({}) free",
                    missing, format_byte_size(missing), format_byte_size(options_.spare_bytes), folder, free,
                    format_byte_size(free)),
        "make room or set MNEME_MODELS to a folder on another disk");
  }

  void report() const {
    if (options_.on_progress) options_.on_progress(part_.size(), state_.total.value_or(0));
  }

  DownloadResult finish() {
    result_.bytes = part_.size();
    result_.sha256 = part_.sha256();
    if (request_.bytes && *request_.bytes != result_.bytes) {
      part_.discard();
      fail(ErrorCode::kCorruptData, "[pull] {}: expected {} bytes, got {}", request_.url, *request_.bytes,
           result_.bytes);
    }
    const std::string expected = request_.sha256.empty() ? state_.sha256 : lower_hex(request_.sha256);
    if (!expected.empty() && expected != result_.sha256) {
      part_.discard();
      fail(ErrorCode::kCorruptData, "[pull] {}: expected SHA-256 {}, got {}; the file was thrown away", request_.url,
           expected, result_.sha256);
    }
    result_.verified = !expected.empty();
    if (result_.etag.empty() && state_.validator.starts_with('"')) result_.etag = state_.validator;
    part_.finish();
    return result_;
  }

  const DownloadRequest& request_;
  const DownloadOptions& options_;
  PartFile part_;
  HttpClient client_;
  PartState state_;
  DownloadResult result_;
  std::chrono::milliseconds retry_after_{0};
  bool writes_ = false;   // Whether the body belongs into the file.
  bool changed_ = false;  // The rest that came belongs to another file than the part.
};

}  // namespace

uint64_t free_disk_bytes(const std::string& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) fail_errno("disk space", folder);
  return checked_mul<uint64_t>(status.f_bavail, status.f_frsize).value_or(UINT64_MAX);
}

DownloadResult download_file(const DownloadRequest& request, const DownloadOptions& options) {
  if (!request.sha256.empty() && !is_sha256_hex(request.sha256)) {
    fail(ErrorCode::kInvalidArgument, "[pull] expected a SHA-256 of 64 hexadecimal digits, got '{}'", request.sha256);
  }
  std::error_code error;
  std::filesystem::create_directories(folder_of(request.path), error);
  if (error) fail(ErrorCode::kIo, "[pull] cannot create folder {}: {}", folder_of(request.path), error.message());
  return Download(request, options).run();
}

}  // namespace mneme
