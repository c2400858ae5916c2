// One layer with the shape of Llama 3.2 1B (8 kv heads of 64, 32 query heads) behind a long context: what attention of
// one generated token costs with everything in memory, with ShadowKV over memory and over a file, with a window of the
// budget's size (the store that reads the budgeted tokens alone), and by reading all keys and values from a file at
// every step.
//   kv_tiers_bench [TOKENS] [STEPS] [BUDGET]

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "base/unnamed_file.h"
#include "budget/buffer.h"
#include "context/async_reader.h"
#include "context/kv_policy.h"
#include "kernels/attention_parts.h"

namespace {

using namespace mneme;

constexpr KvShape kShape{8, 64, 64, 0};
constexpr size_t kHeads = 32, kWidth = 256, kPiece = 512;
constexpr size_t kKeys = size_t{kShape.n_kv_heads} * kShape.key_dim, kQueries = kHeads * kShape.key_dim;

/// Hidden states that change slowly, and their projections: neighbours are alike, keys have few directions.
class Text {
 public:
  Text() : hidden_(kWidth), keys_of_(kWidth * kKeys), queries_of_(kWidth * kQueries) {
    PhiloxStream weights(1);
    for (float& w : keys_of_) w = weights.next_normal();
    for (float& w : queries_of_) w = weights.next_normal();
    for (float& h : hidden_) h = random_.next_normal();
  }

  std::vector<float> q, k, v;

  /// Makes the next n tokens.
  void next(size_t n) {
    std::vector<float> states(n * kWidth);
    for (size_t t = 0; t < n; ++t) {
      for (size_t i = 0; i < kWidth; ++i) {
        hidden_[i] = 0.98f * hidden_[i] + 0.2f * random_.next_normal();
        states[t * kWidth + i] = hidden_[i] * std::pow(static_cast<float>(i + 1), -0.85f);
      }
    }
    k.assign(n * kKeys, 0.0f);
    q.assign(n * kQueries, 0.0f);
    v.resize(n * kKeys);
    for (float& x : v) x = random_.next_normal();
    const auto rows = [](const std::vector<float>& w, size_t dim) {
      return kernels::StoredRows{reinterpret_cast<const std::byte*>(w.data()), dim * sizeof(float), DType::kF32};
    };
    kernels::combine_rows(states.data(), kWidth, n, rows(keys_of_, kKeys), kWidth, kKeys, k.data(), kKeys);
    kernels::combine_rows(states.data(), kWidth, n, rows(queries_of_, kQueries), kWidth, kQueries, q.data(), kQueries);
  }

 private:
  std::vector<float> hidden_, keys_of_, queries_of_;
  PhiloxStream random_{2};
};

struct Cost {
  double first_ms = 0;  ///< Of a token that finds nothing in the slots.
  std::vector<double> later_ms;
  FetchCounts fetches;
  uint64_t bytes = 0;
};

double ms_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

void check(const KvLayer& store) {
  if (!store.trouble().empty()) throw Error(ErrorCode::kIo, std::string(store.trouble()));
}

Cost measure(std::string_view policy, size_t n_tokens, size_t n_steps) {
  Ledger ledger;
  const auto store = KvPolicy::parse(policy).make_layer(kShape, n_tokens + n_steps, kPiece, ledger);
  RopeParameters parameters;
  parameters.n_rot = kShape.key_dim;
  parameters.base = 500000;
  const RopeSpec rope = make_rope(parameters);
  Text text;
  std::vector<float> out(kPiece * kQueries);
  size_t position = 0;
  const auto feed = [&](size_t n, size_t n_heads, TokenRole role) {
    std::vector<int32_t> positions(n);
    for (size_t i = 0; i < n; ++i) positions[i] = static_cast<int32_t>(position + i);
    const RopeAngles angles(rope, positions);
    for (size_t t = 0; t < n; ++t) angles.rotate(text.q.data() + t * kQueries, kHeads, kShape.key_dim, t);
    position += n;
    return ms_of([&] {
      store->reserve(n);
      store->extend({text.k.data(), text.v.data(), kKeys, kKeys, n, &angles, 0},
                    {text.q.data(), kQueries, n_heads, 0.125f, 0, nullptr, role}, out.data(), kQueries);
    });
  };
  for (size_t first = 0; first < n_tokens; first += kPiece) {
    text.next(std::min(kPiece, n_tokens - first));
    feed(std::min(kPiece, n_tokens - first), 0, TokenRole::kGiven);  // nobody looks at what they see
    check(*store);
  }
  Cost cost;
  for (size_t step = 0; step < n_steps; ++step) {
    text.next(1);
    const double ms = feed(1, kHeads, TokenRole::kGenerated);
    check(*store);
    if (step == 0) {
      cost.first_ms = ms;
    } else {
      cost.later_ms.push_back(ms);
    }
  }
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
