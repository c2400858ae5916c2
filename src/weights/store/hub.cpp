#include "weights/store/hub.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "weights/store/sha256.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxListingBytes = uint64_t{32} << 20;
constexpr size_t kMaxFiles = 100'000;
constexpr int kMaxPages = 100;

/// What is taken when nothing is asked for, best first: small without much loss.
constexpr std::array<std::string_view, 8> kUsualQuantisations = {"Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M",
                                                                 "Q6_K",   "Q8_0",   "BF16", "F16"};

bool is_name(std::string_view text) {
  if (text.empty() || text.size() > 200 || text.front() == '.' || text.front() == '-') return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
  });
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return lower;
}

/// Percent-encodes what may not stand in the path of a URL.
std::string url_path(std::string_view path) {
  std::string out;
  for (const char c : path) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("-_.~/").find(c) != std::string_view::npos;
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

/// Whether `tag` stands in a file name between separators: "q4_k_m" in "model-Q4_K_M.gguf", but not "q4_k" there.
bool has_tag(const std::string& path, const std::string& tag) {
  const std::string lower = lower_case(path);
  const std::string wanted = lower_case(tag);
  for (size_t at = lower.find(wanted); at != std::string::npos; at = lower.find(wanted, at + 1)) {
    const auto separates = [](char c) { return c == '-' || c == '.' || c == '/'; };
    const size_t end = at + wanted.size();
    if ((at == 0 || separates(lower[at - 1])) && (end == lower.size() || separates(lower[end]))) return true;
  }
  return false;
}

bool is_gguf(const std::string& path) {
  return path.ends_with(".gguf");
}

/// Files beside a model that are no language model: image encoders and importance matrices.
bool is_companion(const std::string& path) {
  const std::string lower = lower_case(path);
  return lower.find("mmproj") != std::string::npos || lower.find("imatrix") != std::string::npos;
}

/// Next page that a "Link: <URL>; rel="next"" header names.
std::string next_page(const HttpResponse& response) {
  const std::string* link = response.header("link");
  if (link == nullptr || link->find("rel=\"next\"") == std::string::npos) return {};
  const size_t begin = link->find('<');
  const size_t end = link->find('>');
  return begin == std::string::npos || end == std::string::npos || end < begin
             ? std::string()
             : link->substr(begin + 1, end - begin - 1);
}

void check_status(const HttpResponse& response, const HubReference& reference) {
  const std::string where = reference.name() + (reference.revision == "main" ? "" : "@" + reference.revision);
  if (!response.failure.empty()) fail(ErrorCode::kIo, "[pull] {}: {}", where, response.failure);
  switch (response.status) {
    case 200:
      return;
    case 404:
      fail(ErrorCode::kNotFound, "[pull] {}: no such repository or revision on the hub", where);
    case 401:
    case 403:
      throw Error(ErrorCode::kIo, fmt::format("[pull] {}: access refused (HTTP {})", where, response.status),
                  "a gated or private repository needs a token in HF_TOKEN; a misspelt name gives the same answer");
    default:
      fail(ErrorCode::kIo, "[pull] {}: the hub answered HTTP {}", where, response.status);
  }
}

void add_files(const Json& page, std::vector<HubFile>& files) {
  for (const Json& entry : page) {
    if (entry.value("type", "") != "file") continue;
    HubFile file{entry.at("path").get<std::string>(), entry.at("size").get<uint64_t>(), {}};
    if (entry.contains("lfs") && entry["lfs"].is_object()) {
      file.sha256 = entry["lfs"].value("oid", "");
      if (!is_sha256_hex(file.sha256)) file.sha256.clear();
    }
    if (is_safe_relative_path(file.path)) files.push_back(std::move(file));
    if (files.size() > kMaxFiles) fail(ErrorCode::kCorruptData, "[pull] the hub lists more than {} files", kMaxFiles);
  }
}

std::string listed(const std::vector<HubFile>& files) {
  constexpr size_t kShown = 12;
  std::string text;
  for (size_t i = 0; i < std::min(files.size(), kShown); ++i) {
    text += fmt::format("{}{} ({})", i > 0 ? ", " : "", files[i].path, format_byte_size(files[i].bytes));
  }
  if (files.size() > kShown) text += fmt::format(" and {} more", files.size() - kShown);
  return text;
}

/// Models among the files, each once: sharded ones by their first shard.
std::vector<HubFile> gguf_models(const std::vector<HubFile>& files) {
  std::vector<HubFile> models;
  for (const HubFile& file : files) {
    if (!is_gguf(file.path) || is_companion(file.path)) continue;
    const auto shard = parse_shard_name(file.path);
    if (!shard || shard->number == 1) models.push_back(file);
  }
  return models;
}

std::vector<HubFile> with_all_shards(const std::vector<HubFile>& files, const HubFile& file) {
  const auto shard = parse_shard_name(file.path);
  if (!shard) return {file};
  std::vector<HubFile> shards;
  for (uint32_t number = 1; number <= shard->count; ++number) {
    const std::string path = shard->file(number);
    const auto found = std::find_if(files.begin(), files.end(), [&](const HubFile& each) { return each.path == path; });
    if (found == files.end()) fail(ErrorCode::kNotFound, "[pull] the shard {} is missing from the repository", path);
    shards.push_back(*found);
  }
  return shards;
}

/// Tensors, configuration and tokenizer at the top of the repository.
std::vector<HubFile> checkpoint_files(const std::vector<HubFile>& files, const HubReference& reference) {
  std::vector<HubFile> chosen;
  bool has_tensors = false;
  for (const HubFile& file : files) {
    if (file.path.find('/') != std::string::npos) continue;
    const bool tensors = file.path.ends_with(".safetensors");
    has_tensors = has_tensors || tensors;
    if (tensors || file.path.ends_with(".json") || file.path == "tokenizer.model" || file.path.ends_with(".jinja")) {
      chosen.push_back(file);
    }
  }
  if (!has_tensors) fail(ErrorCode::kNotFound, "[pull] {} has no .safetensors files", reference.name());
  return chosen;
}

HubFile default_model(const std::vector<HubFile>& models, const HubReference& reference) {
  if (models.size() == 1) return models[0];
  for (const std::string_view tag : kUsualQuantisations) {
    for (const HubFile& model : models) {
      if (has_tag(model.path, std::string(tag))) return model;
    }
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("[pull] {} has several models: {}", reference.name(), listed(models)),
              fmt::format("say which, as in {}:{}", reference.name(), models[0].path));
}

}  // namespace

std::optional<HubReference> parse_hub_reference(std::string_view text) {
  HubReference reference;
  if (const size_t colon = text.find(':'); colon != text.npos) {
    reference.selector = text.substr(colon + 1);
    text = text.substr(0, colon);
    if (!is_safe_relative_path(reference.selector)) return std::nullopt;
  }
  if (const size_t at = text.find('@'); at != text.npos) {
    reference.revision = text.substr(at + 1);
    text = text.substr(0, at);
    if (!is_safe_relative_path(reference.revision)) return std::nullopt;
  }
  const size_t slash = text.find('/');
  if (slash == text.npos) return std::nullopt;
  reference.owner = text.substr(0, slash);
  reference.repository = text.substr(slash + 1);
  if (!is_name(reference.owner) || !is_name(reference.repository)) return std::nullopt;
  return reference;
}

Hub Hub::from_environment(std::string url) {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (url.empty()) url = variable("MNEME_HUB");
  while (url.ends_with('/')) url.pop_back();
  Hub hub;
  if (!url.empty()) hub.url = std::move(url);
  hub.token = variable("MNEME_HUB_TOKEN");
  if (hub.token.empty() && hub.url == kDefaultHub) hub.token = variable("HF_TOKEN");
  return hub;
}

std::string Hub::file_url(const HubReference& reference, const std::string& path) const {
  return fmt::format("{}/{}/resolve/{}/{}", url, reference.name(), url_path(reference.revision), url_path(path));
}

std::vector<HubFile> list_hub_files(HttpClient& client, const Hub& hub, const HubReference& reference) {
  std::vector<std::string> headers;
  if (!hub.token.empty()) headers.push_back(fmt::format("Authorization: Bearer {}", hub.token));
  std::string url =
      fmt::format("{}/api/models/{}/tree/{}?recursive=true", hub.url, reference.name(), url_path(reference.revision));
  std::vector<HubFile> files;
  for (int page = 0; !url.empty(); ++page) {
    if (page >= kMaxPages) fail(ErrorCode::kCorruptData, "[pull] the hub's listing has more than {} pages", kMaxPages);
    std::string body;
    const HttpResponse response = client.get_text(url, headers, kMaxListingBytes, body);
    check_status(response, reference);
    const Json json = parse_json(body, "listing of " + reference.name());
    if (!json.is_array())
      fail(ErrorCode::kCorruptData, "[pull] expected a list of files from {}, got {}", url, json.type_name());
    try {
      add_files(json, files);
    } catch (const Json::exception&) {
      fail(ErrorCode::kCorruptData, "[pull] {}: an entry of the listing lacks its path or size", url);
    }
    url = next_page(response);
    // The token must not follow a listing to another host.
    if (!url.empty() && !url.starts_with(hub.url + "/")) headers.clear();
  }
  return files;
}

std::vector<HubFile> choose_hub_files(const std::vector<HubFile>& files, const HubReference& reference) {
  const std::string& selector = reference.selector;
  if (selector == "safetensors") return checkpoint_files(files, reference);
  for (const HubFile& file : files) {
    if (file.path == selector) return with_all_shards(files, file);
  }
  const std::vector<HubFile> models = gguf_models(files);
  if (models.empty()) {
    throw Error(ErrorCode::kNotFound, fmt::format("[pull] {} has no GGUF file", reference.name()),
                fmt::format("{}:safetensors pulls a checkpoint for `mneme convert`", reference.name()));
  }
  if (selector.empty()) return with_all_shards(files, default_model(models, reference));
  std::vector<HubFile> matching;
  std::copy_if(models.begin(), models.end(), std::back_inserter(matching),
               [&](const HubFile& file) { return has_tag(file.path, selector); });
  if (matching.empty()) {
    fail(ErrorCode::kNotFound, "[pull] {} has no '{}', only {}", reference.name(), selector, listed(models));
  }
  if (matching.size() > 1) {
    fail(ErrorCode::kInvalidArgument, "[pull] '{}' in {} may be {}", selector, reference.name(), listed(matching));
  }
  return with_all_shards(files, matching[0]);
}

bool is_safe_relative_path(std::string_view path) {
  if (path.empty() || path.size() > 1000) return false;
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == ".." || part.size() > 200) return false;
    begin = end + 1;
  }
  return std::all_of(path.begin(), path.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F && c != '\\'; });
}

std::string ShardName::file(uint32_t other_number) const {
  return fmt::format("{}-{:05}-of-{:05}{}", base, other_number, count, extension);
}

std::optional<ShardName> parse_shard_name(const std::string& path) {
  // BASE-00001-of-00003.EXTENSION
  constexpr size_t kTailLength = 15;
  constexpr uint32_t kMostShards = 10'000;
  const size_t dot = path.rfind('.');
  if (dot == std::string::npos || dot < kTailLength) return std::nullopt;
  const std::string_view tail = std::string_view(path).substr(dot - kTailLength, kTailLength);
  const auto number = parse_decimal(tail.substr(1, 5));
  const auto count = parse_decimal(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !number || !count || *number < 1 || *number > *count ||
      *count > kMostShards) {
    return std::nullopt;
  }
  return ShardName{path.substr(0, dot - kTailLength), path.substr(dot), static_cast<uint32_t>(*number),
                   static_cast<uint32_t>(*count)};
}

}  // namespace mneme
