#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "weights/store/http_client.h"

namespace mneme {

inline constexpr const char* kDefaultHub = "https://huggingface.co";

/// A model on a hub: "OWNER/REPO", "OWNER/REPO:Q4_K_M", "OWNER/REPO:folder/file.gguf", "OWNER/REPO@REVISION:Q8_0".
struct HubReference {
  std::string owner, repository;
  std::string revision = "main";
  std::string selector;  ///< A file, a quantisation, "safetensors", or empty.

  std::string name() const { return owner + "/" + repository; }
};

/// Nothing when the text has another form.
std::optional<HubReference> parse_hub_reference(std::string_view text);

struct HubFile {
  std::string path;  ///< Within the repository; checked to stay inside a folder it is joined to.
  uint64_t bytes = 0;
  std::string sha256;  ///< Empty for small files, whose digest a hub does not give.
};

/// Address and key of a hub. The token goes to no other host.
struct Hub {
  std::string url = kDefaultHub;
  std::string token;

  /// The hub at `url`, or at $MNEME_HUB when empty, else the default one. The token is $MNEME_HUB_TOKEN; $HF_TOKEN
  /// stands in for it at the default hub only.
  static Hub from_environment(std::string url = {});
  std::string file_url(const HubReference& reference, const std::string& path) const;
};

/// All files of a repository. Throws Error(kNotFound) when there is no such repository, kIo, kCorruptData.
std::vector<HubFile> list_hub_files(HttpClient& client, const Hub& hub, const HubReference& reference);

/// The files that a selector means, a sharded model with all its shards in order: those of a file name or of a
/// quantisation (the part of a name like "Q4_K_M", in any case); with "safetensors" the checkpoint with its
/// configuration and tokenizer; with nothing the only GGUF file, or the first of some usual quantisations. Throws
/// Error(kNotFound or kInvalidArgument) that lists what there is.
std::vector<HubFile> choose_hub_files(const std::vector<HubFile>& files, const HubReference& reference);

/// A relative path without "..", empty parts, backslashes and control characters.
bool is_safe_relative_path(std::string_view path);

/// Shard of a model in several files, "NAME-00002-of-00005.gguf" (or .safetensors).
struct ShardName {
  std::string base, extension;
  uint32_t number, count;

  std::string file(uint32_t other_number) const;
};
std::optional<ShardName> parse_shard_name(const std::string& path);

}  // namespace mneme
