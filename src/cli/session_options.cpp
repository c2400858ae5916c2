#include "cli/session_options.h"

#include <fmt/format.h>

#include <charconv>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "context/state_layout.h"

namespace mneme::cli {
namespace {

void set_disk_limit(const SessionOptions& options, Engine& engine) {
  if (!options.disk.empty()) engine.ledger().set_limit(Tier::kDisk, parse_byte_size(options.disk));
}

/// "HOST:PORT", or the path of a Unix socket.
PageServer::Options parse_server(const std::string& address) {
  PageServer::Options out;
  const size_t colon = address.rfind(':');
  if (address.find('/') != std::string::npos) {
    out.socket = address;
  } else {
    int port = 0;
    const char* const end = address.data() + address.size();
    const char* const digits = colon == std::string::npos ? end : address.data() + colon + 1;
    const auto [stop, error] = std::from_chars(digits, end, port);
    if (colon == 0 || error != std::errc() || stop != end || port < 1 || port > 65535) {
      fail(ErrorCode::kInvalidArgument, "[--redis] expected HOST:PORT or the path of a socket, found '{}'",
           brief_text(address));
    }
    out.host = address.substr(0, colon);
    out.port = port;
  }
  return out;
}

}  // namespace

void add_session_folder(CLI::App& command, std::string& folder) {
  command.add_option("--session-folder", folder, "Where sessions are (default: $XDG_DATA_HOME/mneme/sessions)");
}

SessionFolder session_folder(const std::string& folder) {
  return SessionFolder(folder.empty() ? default_session_folder() : folder);
}

void SessionOptions::add_to(CLI::App& command) {
  command.add_option("--session", name, "Keep everything under this name on disk, and go on from there");
  add_session_folder(command, folder);
  command.add_option("--prefix-cache", cache,
                     "Keep computed pages of prompts in this folder, and use those that are there");
  command.add_option("--redis", redis,
                     "Share such pages with other machines through this Redis server: HOST:PORT, or a socket's path");
  command.add_option("--disk", disk, "Limit of what session and pages take on disk, e.g. 2G");
}

std::unique_ptr<SessionRecorder> SessionOptions::open(Engine& engine) const {
  if (!used()) return nullptr;
  set_disk_limit(*this, engine);
  auto recorder = std::make_unique<SessionRecorder>(engine, session_folder(folder).make_file_of(name));
  report_trouble(*recorder);
  return recorder;
}

TieredCache SessionOptions::open_cache(Engine& engine) const {
  TieredCache out;
  if (cache.empty() && redis.empty()) return out;
  set_disk_limit(*this, engine);
  PrefixCache::Options options;
  if (!cache.empty()) options.tiers.push_back((out.disk = std::make_unique<PageDisk>(engine.ledger(), cache)).get());
  if (!redis.empty()) {
    out.server = std::make_unique<PageServer>(engine.ledger(), parse_server(redis));
    options.tiers.push_back(out.server.get());
  }
  const std::string identity =
      fmt::format("{}/{}/layout {}", engine.identity(), engine.state_options().kv.name(), kStateLayout);
  out.cache = std::make_unique<PrefixCache>(engine.ledger(), identity, options);
  return out;
}

void TieredCache::finish_writing() {
  for (PageTier* tier : {static_cast<PageTier*>(disk.get()), static_cast<PageTier*>(server.get())}) {
    if (tier == nullptr) continue;
    tier->flush();
    if (const std::string trouble = tier->trouble(); !trouble.empty()) {
      fmt::print(stderr, "warning: prefix cache: {}\n", trouble);
    }
  }
}

void report_trouble(SessionRecorder& recorder) {
  if (const std::string trouble = recorder.take_trouble(); !trouble.empty()) {
    fmt::print(stderr, "warning: session: {}\n", trouble);
  }
}

}  // namespace mneme::cli
