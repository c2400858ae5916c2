#include "cli/kv_auto.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "eval/kv_choice.h"
#include "eval/own_text.h"
#include "weights/store/model_store.h"

namespace mneme::cli {
namespace {

constexpr uint32_t kWindow = 1024;
constexpr uint64_t kWindows = 2;
/// Part of the key, so that new candidates are measured anew.
constexpr int kVersion = 1;

/// The file that remembers the choice for this model, text and bound.
std::string memory_of(const KvAutoOptions& options, const std::string& text) {
  const std::string file = resolve_model(options.model);
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) fail(ErrorCode::kNotFound, "[kv auto] cannot read {}", file);
  const std::string key = fmt::format("{} {} {} {} {} {} {}", std::filesystem::absolute(file).string(), status.st_size,
                                      status.st_mtime, XXH64(text.data(), text.size(), 0), options.bound, kVersion, kWindow);
  return fmt::format("{}/kv-choices/{:016x}.json", model_store_folder(), XXH64(key.data(), key.size(), 0));
}

/// A remembered choice; nothing when there is none that can be read.
std::optional<std::pair<std::string, std::string>> recall_choice(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    const Json json = parse_json(read_text_file(path), path);
    const std::string policy = json.at("policy").get<std::string>();
    KvPolicy::parse(policy);
    return std::pair(policy, json.at("reason").get<std::string>());
  } catch (const std::exception&) {
    return std::nullopt;  // measured again and overwritten
  }
}

std::string text_of(const KvAutoOptions& options) {
  return options.text_file.empty() ? std::string() : read_text_file(options.text_file);
}

void remember(const std::string& path, const KvChoice& choice) {
  Json measured = Json::array();
  for (const KvQuality& q : choice.measured) {
    measured.push_back({{"policy", q.policy},
                        {"bytes", q.bytes},
                        {"plain_bytes", q.plain_bytes},
                        {"kl_divergence", q.divergence},
                        {"same_choice", q.same_choice},
                        {"perplexity", q.perplexity}});
  }
  try {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    AtomicFile file(path);
    file.write(Json{{"policy", choice.policy}, {"reason", choice.reason}, {"measured", measured}}.dump(2) + "\n");
    file.commit();
  } catch (const std::exception& e) {
    fmt::print(stderr, "note: the choice could not be remembered: {}\n", e.what());
  }
}

}  // namespace

std::string resolve_kv_auto(const KvAutoOptions& options) {
  const std::string text = text_of(options);
  const std::string path = memory_of(options, text);
  if (const auto known = recall_choice(path)) {
    fmt::print(stderr, "--kv auto: {} ({})\n", known->first, known->second);
    return known->first;
  }
  Ledger ledger;
  PlanRequest request;
  if (!options.memory.empty()) request.memory = parse_byte_size(options.memory);
  request.n_sequences = static_cast<uint32_t>(kv_candidates().size()) + 1;
  request.pack = options.pack;
  const auto opened = Engine::plan_only(options.model, {}, ledger);
  const auto window = static_cast<uint32_t>(std::min<uint64_t>(kWindow, opened->model().hyper.n_context));
  request.context = window;
  const auto engine = Engine::load(options.model, request, ledger);
  std::vector<TokenId> tokens = text.empty() ? own_text(*engine, window * kWindows)
                                             : engine->tokenizer().encode(text, {false, false});
  KvQualityOptions quality;
  quality.window = window;
  quality.first_scored = window / 4;
  quality.max_windows = kWindows;
  Progress progress("choosing how to keep keys and values", kWindows, "windows");
  const KvChoice choice = choose_kv(*engine, tokens, {options.bound, 0.95}, quality,
                                    [&](uint64_t done, uint64_t) { progress.update(done); });
  fmt::print(stderr, "--kv auto: {} ({})\n", choice.policy, choice.reason);
  remember(path, choice);
  return choice.policy;
}

KvWatch::KvWatch(Engine& engine, const KvAutoOptions& options, bool in_session)
    : options_(options),
      in_session_(in_session),
      guard_(engine, {.bound = {options.bound, 0.95}, .window = kWindow}, !in_session) {}

void KvWatch::after_answer(ChatSession& session) {
  std::optional<KvGuardFinding> finding;
  try {
    finding = guard_.look(session.tokens());
  } catch (const Error& e) {
    if (!quiet_) fmt::print(stderr, "note: --kv auto cannot watch the dialogue: {}\n", e.what());
    quiet_ = true;
    return;
  }
  if (!finding || finding->inside) return;
  if (in_session_) {
    if (!quiet_) {
      fmt::print(stderr, "note: --kv auto: {} has {}; this session keeps it, a new one would take more\n",
                 finding->now.policy, finding->reason);
    }
    quiet_ = true;
    return;
  }
  fmt::print(stderr, "--kv auto: {} has {}\n", finding->now.policy, finding->reason);
  session.recompute();
  KvChoice choice;
  choice.policy = finding->policy;
  choice.reason = fmt::format("{} had {}", finding->now.policy, finding->reason);
  choice.measured = {finding->now};
  remember(memory_of(options_, text_of(options_)), choice);
}

}  // namespace mneme::cli
