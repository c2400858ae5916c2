#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "context/page_disk.h"
#include "context/page_server.h"
#include "context/prefix_cache.h"
#include "engine/session/session_folder.h"
#include "engine/session/session_recorder.h"

namespace mneme::cli {

/// --session-folder, of every command that has to do with sessions.
void add_session_folder(CLI::App& command, std::string& folder);
SessionFolder session_folder(const std::string& folder);

/// A prefix cache with the tiers that were asked for.
struct TieredCache {
  std::unique_ptr<PageDisk> disk;
  std::unique_ptr<PageServer> server;
  std::unique_ptr<PrefixCache> cache;

  /// Waits until all pages are written, and says on stderr when some could not be.
  void finish_writing();
};

/// Options of commands that keep what they compute on disk: --session --session-folder --prefix-cache --redis
/// --disk.
struct SessionOptions {
  std::string name, folder, cache, redis, disk;

  void add_to(CLI::App& command);
  bool used() const { return !name.empty(); }
  /// Opens the session and says on stderr when something of it is lost or cannot be saved; null without --session.
  /// Throws Error.
  std::unique_ptr<SessionRecorder> open(Engine& engine) const;
  /// The cache of --prefix-cache and --redis; without a cache inside when neither was given. Throws Error.
  TieredCache open_cache(Engine& engine) const;
};

/// Says on stderr what went wrong with saving, once.
void report_trouble(SessionRecorder& recorder);

}  // namespace mneme::cli
