#include "recall/kept/index_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"

namespace mneme::recall {
namespace {

constexpr int kFormat = 1;
constexpr int kPollMs = 5;

/// The scope that a file of an index folder belongs to, 0 for others: digits, then '.' or '-'.
int64_t scope_of(const std::string& name) {
  int64_t scope = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), scope);
  const bool ours = error == std::errc() && end != name.data() + name.size() && (*end == '.' || *end == '-');
  return ours && scope > 0 ? scope : 0;
}

}  // namespace

FileLock::~FileLock() {
  if (file_ >= 0) ::close(file_);
}

std::optional<FileLock> FileLock::take(const std::string& path, int wait_ms) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) fail_errno("open", path);
  FileLock lock(file);
  for (int waited = 0; ::flock(file, LOCK_EX | LOCK_NB) != 0; waited += kPollMs) {
    if (errno != EWOULDBLOCK && errno != EINTR) fail_errno("lock", path);
    if (waited >= wait_ms) return std::nullopt;
    ::usleep(kPollMs * 1000);
  }
  return lock;
}

IndexFiles::IndexFiles(std::string folder, std::string store, int64_t scope)
    : folder_(std::move(folder)), store_(std::move(store)), scope_(scope) {}

std::string IndexFiles::own(const char* end) const {
  return fmt::format("{}/{}.{}", folder_, scope_, end);
}

std::optional<IndexState> IndexFiles::read() const {
  if (!std::filesystem::exists(own("state"))) return std::nullopt;
  try {
    const Json json = parse_json(read_text_file(own("state"), 1 << 20), own("state"));
    if (json.at("format").get<int>() != kFormat || json.at("store").get<std::string>() != store_ ||
        json.at("scope").get<int64_t>() != scope_) {
      return std::nullopt;
    }
    IndexState state;
    state.cursor = {json.at("time").get<Time>(), json.at("sequence").get<int64_t>()};
    state.kind = ann::find_index_kind(json.at("kind").get<std::string>());
    if (!state.kind) return state;
    state.file = json.at("file").get<std::string>();
    state.model = json.at("model").get<std::string>();
    state.dimension = json.at("dimension").get<uint32_t>();
    state.vectors = json.at("vectors").get<uint64_t>();
    const bool sound = scope_of(state.file) == scope_ && state.file.find('/') == std::string::npos &&
                       state.vectors <= UINT32_MAX && state.dimension > 0 && state.dimension <= ann::kMaxDimension;
    return sound ? std::optional(state) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;  // replaced or damaged; an index can be made again
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

std::string IndexFiles::new_name(ann::IndexKind kind) const {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != static_cast<ssize_t>(sizeof(random))) {
    fail_errno("keep index", "getrandom");
  }
  return fmt::format("{}-{:016x}.{}", scope_, random, ann::index_kind_name(kind));
}

bool IndexFiles::publish(const IndexState& state, int wait_ms, FunctionRef<void()> write) const {
  const auto lock = FileLock::take(own("lock"), wait_ms);
  if (!lock) return false;
  const std::optional<IndexState> before = read();
  if (before && before->cursor.time > state.cursor.time) return false;
  write();
  const Json json = {{"format", kFormat},
                     {"store", store_},
                     {"scope", scope_},
                     {"kind", state.kind ? std::string(ann::index_kind_name(*state.kind)) : "none"},
                     {"file", state.file},
                     {"model", state.model},
                     {"dimension", state.dimension},
                     {"vectors", state.vectors},
                     {"time", state.cursor.time},
                     {"sequence", state.cursor.sequence}};
  AtomicFile file(own("state"));
  file.write(json.dump());
  file.commit();
  remove_but(state.file);
  return true;
}

void IndexFiles::remove_but(const std::string& kept) const {
  std::error_code none;
  std::vector<std::filesystem::path> others;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, none)) {
    const std::string name = entry.path().filename().string();
    if (scope_of(name) != scope_ || name == kept) continue;
    if (name == fmt::format("{}.state", scope_) || name == fmt::format("{}.lock", scope_)) continue;
    others.push_back(entry.path());
  }
  for (const auto& other : others) std::filesystem::remove_all(other, none);
}

void IndexFiles::remove_all() const {
  const auto lock = FileLock::take(own("lock"), 0);  // without it too: what is gone is made again
  std::error_code none;
  std::filesystem::remove(own("state"), none);
  remove_but("");
}

std::vector<int64_t> scopes_with_index(const std::string& folder) {
  std::vector<int64_t> scopes;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (const int64_t scope = scope_of(name); scope > 0 && name.ends_with(".state")) scopes.push_back(scope);
  }
  std::sort(scopes.begin(), scopes.end());
  return scopes;
}

std::vector<std::string> index_files_in(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code none;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, none)) {
    if (entry.is_regular_file(none)) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace mneme::recall
