// One layer with the shape of Llama 3.2 1B (8 kv heads of 64, 32 query heads) behind a long context: what attention of
// one generated token costs with everything in memory, with ShadowKV over memory and over a file, with a window of the
// budget's size (the store that reads the budgeted tokens alone), and by reading all keys and values from a file at
// every step.
//   kv_tiers_bench [TOKENS] [STEPS] [BUDGET]

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/unnamed_file.h"
#include "budget/buffer.h"
#include "context/async_reader.h"
#include "context/kv_policy.h"
#include "kv_text.h"

namespace {

using namespace mneme;

using bench::kKeys;
using bench::kShape;
using bench::ms_of;

struct Cost {
  double first_ms = 0;  ///< Of a token that finds nothing in the slots.
  std::vector<double> later_ms;
  FetchCounts fetches;
  uint64_t bytes = 0;
};

Cost measure(std::string_view policy, size_t n_tokens, size_t n_steps) {
  Ledger ledger;
  const auto store = KvPolicy::parse(policy).make_layer(kShape, n_tokens + n_steps, bench::Feeder::kPiece, ledger);
  bench::Feeder feeder;
  feeder.fill(*store, n_tokens);
  Cost cost;
  cost.first_ms = feeder.step(*store);
  for (size_t step = 1; step < n_steps; ++step) cost.later_ms.push_back(feeder.step(*store));
  std::sort(cost.later_ms.begin(), cost.later_ms.end());
  cost.fetches = store->fetches();
  cost.bytes = store->bytes();
  return cost;
}

/// A step that reads all keys and values from a file, without the attention over them.
double read_everything_ms(size_t n_tokens, size_t n_steps) {
  const char* const folder = std::getenv("MNEME_KV_FOLDER");
  const int file = open_unnamed(folder != nullptr ? folder : "/var/tmp");
  constexpr size_t kRead = size_t{1} << 20;
  Ledger ledger;
  Buffer memory(ledger, Tag::kScratch, 16 * kRead, "reads");
  const size_t bytes = n_tokens * 2 * kKeys * 2 / kRead * kRead;
  for (size_t at = 0; at < bytes; at += kRead) {
    if (::pwrite(file, memory.data(), kRead, static_cast<off_t>(at)) != static_cast<ssize_t>(kRead))
      fail_errno("write", "a file");
  }
  AsyncReader reader;
  std::vector<double> times;
  for (size_t step = 0; step < std::min<size_t>(n_steps, 5); ++step) {
    std::vector<ReadRequest> requests;
    for (size_t at = 0; at < bytes; at += kRead) {
      requests.push_back({at, static_cast<uint32_t>(kRead), memory.data() + at / kRead % 16 * kRead, -1});
    }
    times.push_back(ms_of([&] {
      reader.read(
          file, requests, [](size_t) {}, "a file");
    }));
  }
  ::close(file);
  std::sort(times.begin(), times.end());
  return times.empty() ? 0 : times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const size_t n_tokens = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 65536;
  const size_t n_steps = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 64;
  const size_t budget = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1024;
  if (n_tokens < 2048 || n_steps < 2 || budget < 8) {
    fmt::print(stderr, "usage: kv_tiers_bench [TOKENS >= 2048] [STEPS >= 2] [BUDGET >= 8]\n");
    return 2;
  }
  fmt::print("{} tokens, {} steps, {} threads, {}\n", n_tokens, n_steps, n_threads(),
             AsyncReader::has_ring() ? "io_uring" : "reads one by one");
  fmt::print("{:<42} {:>10} {:>9} {:>16} {:>9} {:>6} {:>12}\n", "form", "memory", "ms/token", "(min-max)", "first",
             "hits", "read/token");
  try {
    const size_t outliers = budget / 1024 * 24 * 8 + 64;
    for (const std::string& policy : {std::string("f16"), fmt::format("shadowkv:budget={}", budget),
                                      fmt::format("shadowkv:budget={},values=disk", budget),
                                      fmt::format("window:sink=0,recent={}", budget + outliers)}) {
      const Cost cost = measure(policy, n_tokens, n_steps);
      fmt::print("{:<42} {:>10} {:>9.3f} {:>16} {:>9.3f} {:>5.0f}% {:>12}\n", policy, format_byte_size(cost.bytes),
                 cost.later_ms[cost.later_ms.size() / 2],
                 fmt::format("({:.3f}-{:.3f})", cost.later_ms.front(), cost.later_ms.back()), cost.first_ms,
                 100 * cost.fetches.hit_rate(), format_byte_size(cost.fetches.bytes / n_steps));
    }
    fmt::print("{:<42} {:>10} {:>9.3f}\n", "reading all from a file, no attention", "",
               read_everything_ms(n_tokens, n_steps));
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
