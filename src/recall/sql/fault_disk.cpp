#include "recall/sql/fault_disk.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>

namespace mneme::recall {
namespace {

void apply(std::string& content, uint64_t offset, std::string_view bytes) {
  if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
  content.replace(offset, bytes.size(), bytes);
}

}  // namespace

/// What SQLite allocates for an open file: its base, then ours.
struct FaultFile {
  sqlite3_file base;
  FaultDisk* disk;
  std::shared_ptr<FaultDisk::Content>* content;

  static FaultFile& of(sqlite3_file* file) { return *reinterpret_cast<FaultFile*>(file); }
  static FaultDisk& disk_of(sqlite3_vfs* vfs) { return *static_cast<FaultDisk*>(vfs->pAppData); }

  static int close(sqlite3_file* file) {
    delete of(file).content;
    return SQLITE_OK;
  }
  static int read(sqlite3_file* file, void* to, int n, sqlite3_int64 offset) {
    const std::string& content = (*of(file).content)->current;
    std::memset(to, 0, static_cast<size_t>(n));
    if (static_cast<uint64_t>(offset) >= content.size()) return SQLITE_IOERR_SHORT_READ;
    const size_t have = std::min(static_cast<size_t>(n), content.size() - static_cast<size_t>(offset));
    std::memcpy(to, content.data() + offset, have);
    return have == static_cast<size_t>(n) ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }
  static int write(sqlite3_file* file, const void* from, int n, sqlite3_int64 offset) {
    FaultDisk& disk = *of(file).disk;
    if (!disk.may_operate()) return SQLITE_IOERR_WRITE;
    FaultDisk::Content& content = **of(file).content;
    std::string_view bytes(static_cast<const char*>(from), static_cast<size_t>(n));
    uint64_t used = 0;
    for (const auto& [name, each] : disk.files_) used += each->current.size();
    const uint64_t end = static_cast<uint64_t>(offset) + bytes.size();
    const uint64_t growth = end > content.current.size() ? end - content.current.size() : 0;
    const bool full = disk.capacity_ > 0 && used + growth > disk.capacity_;
    if (full) bytes = bytes.substr(0, bytes.size() / 2);
    apply(content.current, static_cast<uint64_t>(offset), bytes);
    content.unsynced.push_back({static_cast<uint64_t>(offset), std::string(bytes)});
    return full ? SQLITE_FULL : SQLITE_OK;
  }
  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    if (!of(file).disk->may_operate()) return SQLITE_IOERR_TRUNCATE;
    FaultDisk::Content& content = **of(file).content;
    content.current.resize(static_cast<size_t>(size));
    content.unsynced.push_back({static_cast<uint64_t>(size), "", true});
    return SQLITE_OK;
  }
  static int sync(sqlite3_file* file, int) {
    if (!of(file).disk->may_operate()) return SQLITE_IOERR_FSYNC;
    FaultDisk::Content& content = **of(file).content;
    content.durable = content.current;
    content.unsynced.clear();
    return SQLITE_OK;
  }
  static int size(sqlite3_file* file, sqlite3_int64* size) {
    *size = static_cast<sqlite3_int64>((*of(file).content)->current.size());
    return SQLITE_OK;
  }
  static int lock(sqlite3_file*, int) { return SQLITE_OK; }
  static int check_lock(sqlite3_file*, int* locked) {
    *locked = 0;
    return SQLITE_OK;
  }
  static int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int sector(sqlite3_file*) { return 512; }
  static int characteristics(sqlite3_file*) { return 0; }

  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out) {
    static const sqlite3_io_methods methods = {1,    close, read,       write,   truncate, sync,
                                               size, lock,  lock,       check_lock, control,  sector,
                                               characteristics, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
    FaultFile& self = of(file);
    self.base.pMethods = nullptr;
    FaultDisk& disk = disk_of(vfs);
    const std::string key = name != nullptr ? name : "temporary";
    if (!disk.files_.contains(key)) {
      if ((flags & SQLITE_OPEN_CREATE) == 0 || !disk.may_operate()) return SQLITE_CANTOPEN;
      disk.files_[key] = std::make_shared<FaultDisk::Content>();
    }
    self.disk = &disk;
    self.content = new std::shared_ptr<FaultDisk::Content>(disk.files_[key]);
    self.base.pMethods = &methods;
    if (out != nullptr) *out = flags;
    return SQLITE_OK;
  }
  static int remove(sqlite3_vfs* vfs, const char* name, int) {
    if (!disk_of(vfs).may_operate()) return SQLITE_IOERR_DELETE;
    return disk_of(vfs).files_.erase(name) > 0 ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
  }
  static int access(sqlite3_vfs* vfs, const char* name, int, int* found) {
    *found = disk_of(vfs).files_.contains(name) ? 1 : 0;
    return SQLITE_OK;
  }
  static int full_name(sqlite3_vfs*, const char* name, int n, char* out) {
    sqlite3_snprintf(n, out, "%s", name);
    return SQLITE_OK;
  }
};

FaultDisk::FaultDisk(std::string name) : name_(std::move(name)), vfs_(std::make_unique<sqlite3_vfs>()) {
  *vfs_ = *sqlite3_vfs_find(nullptr);
  vfs_->iVersion = 2;
  vfs_->szOsFile = sizeof(FaultFile);
  vfs_->zName = name_.c_str();
  vfs_->pAppData = this;
  vfs_->pNext = nullptr;
  vfs_->xOpen = FaultFile::open;
  vfs_->xDelete = FaultFile::remove;
  vfs_->xAccess = FaultFile::access;
  vfs_->xFullPathname = FaultFile::full_name;
  sqlite3_vfs_register(vfs_.get(), 0);
}

FaultDisk::~FaultDisk() { sqlite3_vfs_unregister(vfs_.get()); }

bool FaultDisk::may_operate() {
  ++operations_;
  if (left_ == 0) return false;
  if (left_ != ~uint64_t{0}) --left_;
  return true;
}

void FaultDisk::restart(PhiloxStream& random) {
  for (auto& [name, content] : files_) {
    for (const Write& write : content->unsynced) {
      const uint64_t fate = random.next_below(3);
      if (fate == 0) continue;
      if (write.truncates) {
        content->durable.resize(std::min<size_t>(content->durable.size(), write.offset));
      } else {
        const size_t n = fate == 1 ? write.bytes.size() : random.next_below(write.bytes.size() + 1);
        apply(content->durable, write.offset, std::string_view(write.bytes).substr(0, n));
      }
    }
    content->current = content->durable;
    content->unsynced.clear();
  }
  left_ = ~uint64_t{0};
}

}  // namespace mneme::recall
