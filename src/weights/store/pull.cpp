#include "weights/store/pull.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/checked_math.h"
#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "weights/store/model_store.h"
#include "weights/store/sha256.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;

/// Where a complete file came from; kept beside it as FILE.origin.json.
struct Origin {
  std::string url, etag, sha256;
  uint64_t bytes = 0;
};

std::string origin_path(const std::string& path) {
  return path + ".origin.json";
}

std::optional<Origin> load_origin(const std::string& path) {
  constexpr uint64_t kMostBytes = 1 << 16;
  try {
    const Json json = parse_json(read_text_file(origin_path(path), kMostBytes), origin_path(path));
    return Origin{json.at("url").get<std::string>(), json.value("etag", ""), json.at("sha256").get<std::string>(),
                  json.at("bytes").get<uint64_t>()};
  } catch (const Error&) {
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

void save_origin(const std::string& path, const Origin& origin) {
  const Json json = {{"url", origin.url}, {"etag", origin.etag}, {"sha256", origin.sha256}, {"bytes", origin.bytes}};
  AtomicFile file(origin_path(path));
  file.write(json.dump(2, ' ', false, Json::error_handler_t::replace));
  file.commit();
}

std::string file_sha256(const std::string& path) {
  constexpr size_t kChunk = size_t{16} << 20;
  const MappedFile file(path);
  Sha256 hash;
  for (size_t at = 0; at < file.size(); at += kChunk) {
    const size_t length = std::min(kChunk, file.size() - at);
    hash.update(file.bytes().subspan(at, length));
    file.release(at, length);
  }
  return hash.hex();
}

/// Size of a regular file, nothing when there is none.
std::optional<uint64_t> size_of(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  const uint64_t bytes = fs::file_size(path, error);
  return error ? std::nullopt : std::optional(bytes);
}

/// Folder and file of a URL within the store: HOST/PATH without the query.
std::string path_of_url(const std::string& url) {
  std::string rest = url.substr(url.find("://") + 3);
  rest.resize(std::min(rest.find_first_of("?#"), rest.size()));
  if (const size_t at = rest.find('@'); at < rest.find('/')) rest.erase(0, at + 1);
  if (rest.find('/') == std::string::npos || !is_safe_relative_path(rest)) {
    fail(ErrorCode::kInvalidArgument, "[pull] expected the URL of a file, got '{}'", url);
  }
  return rest;
}

/// A URL of another shard: only the file name changes.
std::string shard_url(const std::string& url, const ShardName& shard, uint32_t number) {
  const std::string own = shard.file(shard.number);
  const std::string name = own.substr(own.rfind('/') + 1);
  const std::string other = shard.file(number);
  std::string changed = url;
  return changed.replace(url.find(name), name.size(), other.substr(other.rfind('/') + 1));
}

class Puller {
 public:
  explicit Puller(const PullOptions& options)
      : options_(options), store_(options.store.empty() ? model_store_folder() : options.store) {}

  PullResult run(const std::string& name) {
    PullResult result;
    if (is_http_url(name)) {
      plan_url(name);
      result.path = requests_[0].path;
    } else {
      plan_hub(name, result);
    }
    if (!options_.sha256.empty()) {
      if (requests_.size() > 1) {
        fail(ErrorCode::kInvalidArgument, "[pull] a SHA-256 was given, but {} is {} files", name, requests_.size());
      }
      requests_[0].sha256 = options_.sha256;
    }
    for (const DownloadRequest& request : requests_) result.files.push_back(look_at_present(request));
    check_space(result.files);
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (!result.files[i].was_present) fetch(requests_[i], result.files[i], i);
    }
    return result;
  }

 private:
  void plan_url(const std::string& url) {
    const std::string path = path_of_url(url);
    const auto shard = parse_shard_name(path);
    if (!shard || shard->number != 1) {
      requests_.push_back(request(url, store_ + "/" + path));
      return;
    }
    for (uint32_t number = 1; number <= shard->count; ++number) {
      requests_.push_back(request(shard_url(url, *shard, number), store_ + "/" + shard->file(number)));
    }
  }

  void plan_hub(const std::string& name, PullResult& result) {
    const auto reference = parse_hub_reference(name);
    if (!reference) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("[pull] expected OWNER/REPO[@REVISION][:FILE] or a URL, got '{}'", name),
                  "for example mneme pull OWNER/REPO:Q4_K_M");
    }
    HttpClient client;
    const std::string folder = hub_folder(store_, *reference);
    for (const HubFile& file : choose_hub_files(list_hub_files(client, options_.hub, *reference), *reference)) {
      DownloadRequest wanted = request(options_.hub.file_url(*reference, file.path), folder + "/" + file.path);
      wanted.sha256 = file.sha256;
      wanted.bytes = file.bytes;
      wanted.bearer_token = options_.hub.token;
      requests_.push_back(std::move(wanted));
    }
    result.path = reference->selector == "safetensors" ? folder : requests_[0].path;
  }

  static DownloadRequest request(std::string url, std::string path) {
    DownloadRequest wanted;
    wanted.url = std::move(url);
    wanted.path = std::move(path);
    return wanted;
  }

  /// Whether the file is there already and need not be asked for.
  PulledFile look_at_present(const DownloadRequest& wanted) const {
    PulledFile file{wanted.path, wanted.url, {}, false};
    const auto bytes = size_of(wanted.path);
    if (!bytes || (wanted.bytes && *wanted.bytes != *bytes)) return file;
    const auto origin = load_origin(wanted.path);
    std::string sha256 = origin && origin->bytes == *bytes ? origin->sha256 : "";
    if (options_.verify || (sha256.empty() && !wanted.sha256.empty())) {
      const std::string found = file_sha256(wanted.path);
      if (!sha256.empty() && found != sha256) return file;  // Damaged since it was pulled.
      sha256 = found;
    }
    if (sha256.empty() || wanted.sha256.empty() || sha256 != wanted.sha256) return file;
    file.was_present = true;
    file.download.bytes = *bytes;
    file.download.sha256 = sha256;
    file.download.verified = true;
    return file;
  }

  void check_space(const std::vector<PulledFile>& files) const {
    uint64_t missing = 0;
    for (size_t i = 0; i < files.size(); ++i) {
      if (files[i].was_present || !requests_[i].bytes) continue;
      const uint64_t there = std::min(size_of(files[i].path + ".part").value_or(0), *requests_[i].bytes);
      missing = checked_add(missing, *requests_[i].bytes - there).value_or(UINT64_MAX);
    }
    if (missing == 0) return;
    std::error_code error;
    fs::create_directories(store_, error);
    if (error) fail(ErrorCode::kIo, "[pull] cannot create folder {}: {}", store_, error.message());
    const uint64_t needed = checked_add(missing, options_.download.spare_bytes).value_or(UINT64_MAX);
    const uint64_t free = options_.download.free_bytes(store_);
    if (free >= needed) return;
    throw Error(ErrorCode::kIo,
                fmt::format("[pull] {} files need {} more bytes ({}) and {} to spare, the disk of {} has {} ({}) free",
                            files.size(), missing, format_byte_size(missing),
                            format_byte_size(options_.download.spare_bytes), store_, free, format_byte_size(free)),
                "make room or set MNEME_MODELS to a folder on another disk");
  }

  void fetch(DownloadRequest wanted, PulledFile& file, size_t index) const {
    const auto origin = load_origin(wanted.path);
    const auto bytes = size_of(wanted.path);
    const bool intact = origin && origin->url == wanted.url && bytes == origin->bytes &&
                        (!options_.verify || file_sha256(wanted.path) == origin->sha256);
    if (intact && wanted.sha256.empty()) wanted.known_etag = origin->etag;
    if (options_.on_file) options_.on_file(fs::path(wanted.path).filename().string(), index, requests_.size());
    file.download = download_file(wanted, options_.download);
    if (file.download.not_modified) {
      file.was_present = true;
      file.download.bytes = *bytes;
      file.download.sha256 = origin->sha256;
      return;
    }
    save_origin(wanted.path, {wanted.url, file.download.etag, file.download.sha256, file.download.bytes});
  }

  const PullOptions& options_;
  std::string store_;
  std::vector<DownloadRequest> requests_;
};

}  // namespace

PullResult pull_model(const std::string& name, const PullOptions& options) {
  return Puller(options).run(name);
}

}  // namespace mneme
