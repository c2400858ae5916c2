#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "weights/store/download.h"
#include "weights/store/hub.h"

namespace mneme {

struct PullOptions {
  std::string store;  ///< Folder of the models; model_store_folder() when empty.
  Hub hub;
  std::string sha256;   ///< Expected digest, for a model in one file.
  bool verify = false;  ///< Read files that are there already and compare their digest, too.
  DownloadOptions download;
  /// Called before each file that is fetched; the progress of its bytes goes to download.on_progress.
  std::function<void(const std::string& name, size_t index, size_t count)> on_file;
};

struct PulledFile {
  std::string path, url;
  DownloadResult download;
  bool was_present = false;  ///< Complete and up to date before; nothing was fetched.
};

struct PullResult {
  std::string path;  ///< What resolve_model() gives for the name: a file, or the folder of a checkpoint.
  std::vector<PulledFile> files;
};

/// Fetches a model into the store: a hub reference (see HubReference), or the URL of a file, whose further shards are
/// found by their names. What is there and unchanged is not fetched again. Space for all files is checked before the
/// first. Throws Error as download_file() and choose_hub_files() do.
PullResult pull_model(const std::string& name, const PullOptions& options);

}  // namespace mneme
