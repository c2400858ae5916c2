#include "cli/kv_basis_store.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/progress.h"
#include "eval/own_text.h"
#include "eval/kv_ranks.h"
#include "weights/store/model_store.h"

namespace mneme::cli {
namespace {

constexpr size_t kMostTokens = 16384, kOwnTokens = 2048;
/// Part of the key of measured ranks, so that another way to choose them measures anew.
constexpr int kRanksVersion = 1;

std::string text_of(const KvAutoOptions& options) {
  return options.text_file.empty() ? std::string() : read_text_file(options.text_file);
}

/// Bases depend on the model's file, the text, and the ranks: on nothing else that a policy says, unless ranks are
/// measured under it.
std::string memory_of(const KvPolicy& policy, const KvAutoOptions& options, const std::string& text) {
  const std::string file = resolve_model(options.model);
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) fail(ErrorCode::kNotFound, "[kv bases] cannot read {}", file);
  const KvChoices::Features& features = *policy.choices().features;
  std::string key = fmt::format("{} {} {} {} {} {}", std::filesystem::absolute(file).string(), status.st_size,
                                status.st_mtime, XXH64(text.data(), text.size(), 0), features.keys, features.values);
  if (features.measured) key += fmt::format(" {} {}", policy.name(), kRanksVersion);
  return fmt::format("{}/kv-bases/{:016x}.bases", model_store_folder(), XXH64(key.data(), key.size(), 0));
}

std::shared_ptr<const KvBases> remembered(const std::string& path) {
  if (!std::filesystem::exists(path)) return nullptr;
  try {
    return KvBases::load(path);
  } catch (const Error&) {
    return nullptr;  // fitted again and overwritten
  }
}

/// What the fit lost: the mean error of keys and of values over the layers; and the ranks that layers got, when they
/// were measured.
std::string summary_of(const KvBases& bases, bool measured) {
  double keys = 0, values = 0, n = 0;
  std::string ranks;
  for (const KvBases::Layer& layer : bases.layers) {
    if (layer.keys.rank == 0) continue;
    keys += layer.key_error;
    values += layer.value_error;
    ranks += fmt::format(" {}+{}", layer.keys.rank, layer.values.rank);
    ++n;
  }
  n = std::max(1.0, n);
  return fmt::format("mean error of keys {:.3f}, of values {:.3f}{}{}", keys / n, values / n,
                     measured ? "; features of keys and values by layer" : "", measured ? ranks : "");
}

}  // namespace

void give_bases(KvPolicy& policy, const KvAutoOptions& options) {
  if (!policy.needs_bases()) return;
  const std::string text = text_of(options);
  const std::string path = memory_of(policy, options, text);
  std::shared_ptr<const KvBases> bases = remembered(path);
  if (bases == nullptr) {
    Ledger ledger;
    PlanRequest request;
    if (!options.memory.empty()) request.memory = parse_byte_size(options.memory);
    request.pack = options.pack;
    const auto opened = Engine::plan_only(options.model, {}, ledger);
    request.context = std::min<uint64_t>(1024, opened->model().hyper.n_context);
    request.n_sequences = fit_sequences(policy);
    const auto engine = Engine::load(options.model, request, ledger);
    std::vector<TokenId> tokens =
        text.empty() ? own_text(*engine, kOwnTokens) : engine->tokenizer().encode(text, {false, false});
    if (tokens.size() > kMostTokens) tokens.resize(kMostTokens);
    std::optional<Progress> progress;
    std::string shown;
    bases = fit_policy_bases(*engine, tokens, policy,
                             [&](const std::string& what, const char* unit, uint64_t done, uint64_t all) {
                               if (what != std::exchange(shown, what)) progress.emplace(what, all, unit);
                               progress->update(done);
                             });
    progress.reset();
    size_t channels = 0;
    for (const KvBases::Layer& layer : bases->layers)
      channels = std::max({channels, layer.keys.channels, layer.values.channels});
    if (tokens.size() < 4 * channels) {
      fmt::print(
          stderr,
          "note: bases were fitted to {} tokens of text for {} channels; --kv-text with more text makes better ones\n",
          tokens.size(), channels);
    }
    try {
      std::filesystem::create_directories(std::filesystem::path(path).parent_path());
      bases->save(path);
    } catch (const std::exception& e) {
      fmt::print(stderr, "note: the bases could not be remembered: {}\n", e.what());
    }
  }
  fmt::print(stderr, "--kv {}: {}\n", policy.name(), summary_of(*bases, policy.choices().features->measured));
  policy.set_bases(std::move(bases));
}

void recall_bases(KvPolicy& policy, const KvAutoOptions& options) {
  if (!policy.needs_bases() || !policy.choices().features->measured) return;
  if (auto bases = remembered(memory_of(policy, options, text_of(options)))) {
    policy.set_bases(std::move(bases));
    return;
  }
  fmt::print(stderr,
             "note: --kv {}: ranks are not measured yet; the plan has the bytes of equal ranks, which they keep to\n",
             policy.name());
}

}  // namespace mneme::cli
