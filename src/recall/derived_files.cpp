#include "recall/derived_files.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/user_folder.h"
#include "recall/index/durable_file.h"

namespace mneme::recall {
namespace {

namespace fs = std::filesystem;

/// With links followed as far as they lead; "" when the name cannot be one of a file.
fs::path resolved(const std::string& name) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(fs::absolute(name, error), error);
  return error ? fs::path() : path;
}

/// "" when the environment names none.
fs::path data_folder() {
  try {
    return resolved(user_data_folder());
  } catch (const Error&) {
    return {};
  }
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  if (path.empty() || folder.empty() || path == folder) return false;
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

}  // namespace

void DerivedFiles::add(int64_t number) {
  records_.insert(number);
  store_.database().query("SELECT payload FROM event WHERE record = ? AND payload IS NOT NULL", {number},
                          [&](const SqlRow& row) {
                            const Record record = record_from_json(parse_json(row.text(0), "event"), "event");
                            if (!record.pointer) return;
                            const bool is_made = record.kind == Kind::kKvSegment || !record.source.parents.empty();
                            (is_made ? made_ : given_).insert(record.pointer->uri);
                          });
}

bool DerivedFiles::is_own(const std::string& path) const {
  const std::string& store = store_.database().name();
  std::vector<fs::path> folders;
  if (store.find("://") == std::string::npos) {
    folders.push_back(resolved((fs::absolute(store).parent_path() / "payloads").string()));
  }
  const fs::path file = resolved(path), data = data_folder();
  if (lies_in(file, data / "recall" / "payloads")) return true;
  if (lies_in(file, data)) return !lies_in(file, data / "recall");  // where stores lie
  return std::any_of(folders.begin(), folders.end(), [&](const fs::path& own) { return lies_in(file, own); });
}

void DerivedFiles::remove(bool dry_run, std::vector<std::string>& gone, std::vector<std::string>& left) const {
  std::set<std::string> all = made_;
  all.insert(given_.begin(), given_.end());
  if (all.empty()) return;
  // Living pointers of all tenants: a file may be shared. Few records point to files.
  std::set<fs::path> used;
  store_.database().restrict_to_tenant(std::string(kAllTenants));
  store_.database().query(
      "SELECT e.payload, r.num FROM record r JOIN event e ON e.record = r.num AND e.version = r.version"
      " WHERE r.kind IN (?, ?) AND e.payload IS NOT NULL",
      {static_cast<int64_t>(Kind::kKvSegment), static_cast<int64_t>(Kind::kAdapter)}, [&](const SqlRow& row) {
        if (records_.contains(row.integer(1))) return;
        const Record record = record_from_json(parse_json(row.text(0), "event"), "event");
        if (record.pointer) used.insert(resolved(record.pointer->uri));
      });
  store_.database().restrict_to_tenant(tenant_);
  for (const std::string& name : all) {
    const fs::path path = resolved(name);
    std::error_code error;
    if (path.empty() || !fs::is_regular_file(path, error)) continue;  // gone, or not the name of a file
    if (!made_.contains(name) || !is_own(name) || used.contains(path)) {
      left.push_back(name);
      continue;
    }
    gone.push_back(path.string());
    if (dry_run) continue;
    fs::remove(path, error);
    if (error) fail(ErrorCode::kIo, "[erase] {}: {}", path.string(), error.message());
    ann::sync_folder(path.parent_path().string());
  }
}

}  // namespace mneme::recall
