#include "engine/session/session_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/user_folder.h"

namespace mneme {
namespace {

constexpr std::string_view kEnding = ".session";

/// Reads a file and checks every byte that counts. Throws Error(kCorruptData) when something is not as it was written.
SessionIndex verified(const MappedFile& file, const std::string& name) {
  SessionIndex index = SessionIndex::read(file.bytes(), name);
  bool intact = !index.damaged;
  for (const auto* blocks : {&index.pages, &index.rests}) {
    for (const auto& [key, block] : *blocks) {
      intact = intact && block.record.intact();
      file.release(static_cast<size_t>(block.record.payload.data() - file.bytes().data()), block.record.payload.size());
    }
  }
  if (!intact) fail(ErrorCode::kCorruptData, "[session] {}: expected what was written, found damaged records", name);
  return index;
}

/// Copies what is complete of a session, verified.
void copy_verified(const std::string& from, const std::string& to) {
  const MappedFile file(from);
  const SessionIndex index = verified(file, from);
  if (!index.complete) fail(ErrorCode::kCorruptData, "[session] {}: expected a complete state, found none", from);
  constexpr size_t kPiece = size_t{1} << 20;
  AtomicFile out(to);
  for (uint64_t at = 0; at < index.end; at += kPiece) {
    const size_t n = std::min<uint64_t>(kPiece, index.end - at);
    out.write(file.bytes().subspan(at, n));
    file.release(at, n);
  }
  out.commit();
}

}  // namespace

std::string default_session_folder() { return user_data_folder() + "/sessions"; }

std::string SessionFolder::file_of(const std::string& name) const {
  const bool legal =
      !name.empty() && name.size() <= 64 && name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
               c == '-';
      });
  if (!legal) {
    fail(ErrorCode::kInvalidArgument, "[session] expected a name of 1 to 64 letters, digits, '.', '_', '-', found '{}'",
         brief_text(name));
  }
  return path_ + "/" + name + std::string(kEnding);
}

std::string SessionFolder::make_file_of(const std::string& name) const {
  std::string file = file_of(name);
  std::error_code ignored;  // what is wrong with the folder shows when the file is opened
  std::filesystem::create_directories(path_, ignored);
  return file;
}

std::vector<SessionSummary> SessionFolder::list() const {
  std::vector<SessionSummary> out;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(path_, missing)) {
    const std::string file = entry.path().filename().string();
    if (file.ends_with(kEnding)) out.push_back(summary(file.substr(0, file.size() - kEnding.size()), false));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

SessionSummary SessionFolder::summary(const std::string& name, bool verify) const {
  SessionSummary out;
  out.name = name;
  const std::string path = file_of(name);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    fail(ErrorCode::kNotFound, "[session] there is no session '{}' in {}", name, path_);
  out.bytes = static_cast<uint64_t>(status.st_size);
  out.changed = status.st_mtime;
  try {
    const MappedFile file(path);
    SessionIndex index = verify ? verified(file, path) : SessionIndex::read(file.bytes(), path);
    out.identity = std::move(index.identity);
    out.n_tokens = index.tokens.size();
    out.n_state = index.n_state;
    if (index.complete) out.details = std::move(index.details);
    if (index.damaged) out.problem = "damaged; `run` uses what is intact";
  } catch (const Error& e) {
    out.problem = e.what();
  }
  return out;
}

void SessionFolder::export_to(const std::string& name, const std::string& file) const {
  const std::string path = file_of(name);
  if (!std::filesystem::exists(path))
    fail(ErrorCode::kNotFound, "[session] there is no session '{}' in {}", name, path_);
  copy_verified(path, file);
}

void SessionFolder::import_from(const std::string& file, const std::string& name) const {
  const std::string path = make_file_of(name);
  if (std::filesystem::exists(path))
    fail(ErrorCode::kInvalidArgument, "[session] there is a session '{}' already", name);
  copy_verified(file, path);
}

void SessionFolder::remove(const std::string& name) const {
  const std::string path = file_of(name);
  if (!std::filesystem::exists(path))
    fail(ErrorCode::kNotFound, "[session] there is no session '{}' in {}", name, path_);
  const RecordLog nobody_else(path);
  std::filesystem::remove(path);
  std::filesystem::remove(path + ".damaged");
}

}  // namespace mneme
