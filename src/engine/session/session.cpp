#include "engine/session/session.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"

namespace mneme {
namespace {

/// Files are not written anew before this much of them is out of date.
constexpr uint64_t kFreeWaste = uint64_t{4} << 20;

void check_identity(const SessionIdentity& found, const SessionIdentity& wanted, const std::string& path) {
  if (found.fingerprint != wanted.fingerprint || found.n_layers != wanted.n_layers) {
    fail(ErrorCode::kInvalidArgument, "[session] {}: expected a session of {}, found one of {}{}", path, wanted.model,
         found.model, found.model == wanted.model ? " with other weights" : "");
  }
  if (found.kv != wanted.kv) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[session] {}: expected keys and values as {}, found {}", path, wanted.kv, found.kv),
                fmt::format("use --kv {}", found.kv.substr(0, found.kv.find('#'))));
  }
}

}  // namespace

Session::Session(std::string path, SessionIdentity identity, Ledger& ledger)
    : path_(std::move(path)), identity_(std::move(identity)), ledger_(ledger) {
  try {
    log_.emplace(path_, identity_, ledger_);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kIo && e.code() != ErrorCode::kNotFound) throw;
    trouble_ = fmt::format("nothing will be saved: {}", e.what());
  }
}

uint64_t Session::most_bytes(uint64_t state_bytes) {
  return 3 * state_bytes + kFreeWaste;
}

Session::~Session() {
  std::error_code ignored;
  if (log_ && log_->bytes() == 0) std::filesystem::remove(path_, ignored);
}

SessionContent Session::load(const std::function<std::unique_ptr<SequenceState>()>& make_state) {
  SessionContent content;
  if (!std::filesystem::exists(path_)) return content;
  const MappedFile file(path_);
  if (file.size() == 0) return content;
  SessionIndex index = SessionIndex::read(file.bytes(), path_);
  check_identity(index.identity, identity_, path_);
  file.will_need(0, file.size());
  content.state = index.load_state(make_state, [&](std::span<const std::byte> bytes) {
    file.release(static_cast<size_t>(bytes.data() - file.bytes().data()), bytes.size());
  });
  if (log_) log_->resume(index);
  damaged_ = index.damaged;
  if (damaged_) {
    trouble_ =
        fmt::format("{} is damaged: {} of {} tokens are as saved, the others are computed again{}", path_,
                    index.n_state, index.tokens.size(), log_ ? "; the file will be kept as " + path_ + ".damaged" : "");
  }
  content.tokens = std::move(index.tokens);
  if (index.complete) content.details = std::move(index.details);
  return content;
}

bool Session::save(const SessionMoment& moment, SaveDepth depth) {
  if (!log_) return false;
  try {
    if (damaged_) {
      rewrite(moment);
    } else {
      log_->append(moment, depth);
    }
    trouble_.clear();
    if (depth == SaveDepth::kComplete && log_->bytes() > 2 * log_->live_bytes() + kFreeWaste) {
      try {
        rewrite(moment);
      } catch (const Error& e) {
        trouble_ = fmt::format("saved, but the file cannot be made smaller: {}", e.what());
      }
    }
    return true;
  } catch (const Error& e) {
    trouble_ = fmt::format("not saved: {}; what was saved before is kept", e.what());
  }
  try {
    if (!damaged_) log_->roll_back();
  } catch (const Error& e) {
    trouble_ += fmt::format(" ({})", e.what());
  }
  return false;
}

/// Writes everything into a new file, which then takes the old one's name; the old one is kept aside when it was
/// damaged.
void Session::rewrite(const SessionMoment& moment) {
  const std::string temporary = fmt::format("{}.{}.tmp", path_, ::getpid());
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);
  try {
    SessionLog fresh(temporary, identity_, ledger_);
    fresh.append(moment, SaveDepth::kComplete);
    if (damaged_) {
      std::filesystem::remove(path_ + ".damaged", ignored);
      std::filesystem::create_hard_link(path_, path_ + ".damaged", ignored);
    }
    fresh.rename(path_);
    log_.emplace(std::move(fresh));
  } catch (const Error&) {
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  damaged_ = false;
}

}  // namespace mneme
