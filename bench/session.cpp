// Time to the next token of a long text: computed from the beginning, resumed from a session, and from cached pages in
// RAM and on disk. The logits must agree to the bit.
//   session_bench MODEL [TOKENS] [FOLDER]

#include "engine/session/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/philox.h"
#include "context/page_disk.h"
#include "context/prefix_cache.h"
#include "engine/engine.h"
#include "weights/model_fingerprint.h"

namespace {

using namespace mneme;

double timed(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Drops what the kernel keeps of all files in a folder.
void forget_files(const std::string& folder) {
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const int descriptor = ::open(file.path().c_str(), O_RDONLY);
    if (descriptor < 0) continue;
    ::fdatasync(descriptor);
    ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    ::close(descriptor);
  }
}

/// Appends one token and returns the logits behind it.
std::vector<float> next_logits(Engine& engine, SequenceState& state, TokenId token) {
  std::vector<float> out(engine.model().n_logits());
  const size_t row = 0;
  engine.run(state, {&token, 1}, [&](size_t, size_t, const float* hidden) {
    engine.model().logits(hidden, {&row, 1}, engine.workspace(), out.data());
  });
  return out;
}

void run(const std::string& model, size_t n_tokens, const std::string& folder) {
  Ledger ledger;
  PlanRequest request;
  request.context = n_tokens + 256;
  const auto engine = Engine::load(model, request, ledger);
  PhiloxStream random(1);
  std::vector<TokenId> tokens(n_tokens);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.next_u32() % engine->model().hyper.n_vocab);
  const std::string name = std::filesystem::path(model).filename().string();
  const SessionIdentity identity{name, model_fingerprint(engine->file()), "f16",
                                 static_cast<uint32_t>(engine->model().blocks.size())};
  const std::string file = folder + "/bench.session", pages = folder + "/bench-pages";
  const auto make = [&] { return engine->make_state(); };

  auto state = engine->make_state();
  std::vector<float> want;
  const double prefill = timed([&] { engine->run(*state, tokens, [](size_t, size_t, const float*) {}); });
  PrefixCache::Options options;
  double save = 0, write_pages = 0, cached_ram = 0;
  {
    Session session(file, identity, ledger);
    (void)session.load(make);
    save = timed([&] {
      if (!session.save({state.get(), tokens, Json::object()}, SaveDepth::kComplete))
        fail(ErrorCode::kIo, "{}", session.trouble());
    });
  }
  {
    PageDisk disk(ledger, pages);
    options.tiers = {&disk};
    PrefixCache cache(ledger, identity.chain_root(), options);
    const double keep =
        timed([&] { cache.keep("", tokens, state->layers(), {}, 1e9 * prefill / static_cast<double>(n_tokens)); });
    write_pages = timed([&] { disk.flush(); });
    fmt::print("keep pages      {:>9.1f} ms, written behind in {:.1f} ms\n", 1e3 * keep, 1e3 * write_pages);
    cached_ram = timed([&] {
      const auto copy = engine->make_state();
      cache.match("", tokens, n_tokens).load(copy->layers());
    });
  }
  const double next = timed([&] { want = next_logits(*engine, *state, 5); });
  const uint64_t state_bytes = state->bytes();
  state.reset();
  fmt::print("prefill         {:>9.1f} ms, {} tokens, {} of state; one token more {:.1f} ms\n", 1e3 * prefill, n_tokens,
             format_byte_size(state_bytes), 1e3 * next);
  fmt::print("save            {:>9.1f} ms, {} on disk, synced\n", 1e3 * save,
             format_byte_size(std::filesystem::file_size(file)));
  const auto report = [&](const char* what, const std::function<std::unique_ptr<SequenceState>()>& load) {
    std::vector<float> got;
    double loading = 0;
    const double seconds = timed([&] {
      std::unique_ptr<SequenceState> loaded;
      loading = timed([&] { loaded = load(); });
      got = next_logits(*engine, *loaded, 5);
    });
    const bool equal =
        got.size() == want.size() && std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0;
    fmt::print("{:<15} {:>9.1f} ms to the first token ({:.1f} ms of loading): {:.0f} times faster, logits {}\n", what,
               1e3 * seconds, 1e3 * loading, (prefill + next) / seconds, equal ? "equal" : "DIFFER");
  };
  const auto resume = [&] {
    Session session(file, identity, ledger);
    return std::move(session.load(make).state);
  };
  report("resume, warm", resume);
  forget_files(folder);
  report("resume, cold", resume);
  fmt::print("pages in RAM    {:>9.1f} ms of loading\n", 1e3 * cached_ram);
  PageDisk disk(ledger, pages);
  options.tiers = {&disk};
  PrefixCache cache(ledger, identity.chain_root(), options);
  report(disk.has_ring() ? "pages, io_uring" : "pages, pread", [&] {
    auto loaded = engine->make_state();
    const PrefixMatch match = cache.match("", tokens, n_tokens);
    match.load(loaded->layers());
    loaded->advance(static_cast<int64_t>(match.n_tokens));
    if (match.n_tokens != n_tokens) fail(ErrorCode::kInvalidArgument, "expected a multiple of {} tokens", kPageTokens);
    return loaded;
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: session_bench MODEL [TOKENS] [FOLDER]\n");
    return 2;
  }
  const std::string folder = (argc > 3 ? std::string(argv[3]) : std::string(".")) + "/session-bench";
  std::filesystem::create_directories(folder);
  try {
    run(argv[1], argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 8192, folder);
  } catch (const mneme::Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
  std::filesystem::remove_all(folder);
}
