#include "eval/vattention_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "base/error.h"
#include "base/philox.h"
#include "budget/page_pool.h"
#include "context/dense_kv.h"
#include "context/kv_storages_example.h"
#include "eval/kv_storage.h"

namespace mneme {
namespace {

constexpr const char* kPaper = "arXiv 2405.04437";

/// Part of the committed memory of keys and values that holds tokens, over contexts of many lengths.
ClaimMeasurement context_utilisation() {
  const KvShape shape{8, 64, 64, 0};
  PhiloxStream random(6);
  uint64_t used = 0, committed = 0;
  for (int i = 0; i < 64; ++i) {
    const uint64_t tokens = 256 + random.next_below(16 * 1024);
    used += tokens * 2 * shape.n_kv_heads * shape.key_dim * 2;
    committed += DenseKv::spec(shape, DType::kF16, 32768, 512).bytes(tokens);
  }
  return {static_cast<double>(used) / static_cast<double>(committed),
          "64 contexts of 256 to 16640 tokens, 8 heads of 64, f16; the reserved maximum of 32768 would leave 0.26"};
}

ClaimMeasurement same_bits() {
  Ledger ledger;
  return {static_cast<double>(storage_differences(200, ledger)),
          "one layer, 200 requests of 1 to 1000 tokens in random chunks, half of them forks of others; pages on "
          "demand, block "
          "tables of 16 and 64 tokens, and everything at the start"};
}

constexpr const char* kMix =
    "200 requests of lognormal lengths (median 400, at most 4096 tokens), 16 layers, 1 KiB a token in each "
    "of K and V";

/// One number of all storages whose name begins so.
std::function<ClaimMeasurement()> of_mix(std::string storage, double (*value)(const StorageWaste&)) {
  return [=] {
    double worst = 0;
    std::string all;
    for (const StorageWaste& waste : storage_waste({})) {
      if (!waste.storage.starts_with(storage)) continue;
      worst = std::max(worst, value(waste));
      all += fmt::format("; {} {:.3f}", waste.storage, value(waste));
    }
    return ClaimMeasurement{worst, kMix + all};
  };
}

ClaimMeasurement capacity() {
  const std::vector<StorageWaste> all = storage_waste({});
  uint64_t fixed = 1, paged = 0;
  for (const StorageWaste& waste : all) {
    if (waste.storage == "static") fixed = std::max<uint64_t>(1, waste.concurrent);
    if (waste.storage.starts_with("pages of 64")) paged = waste.concurrent;
  }
  return {
      static_cast<double>(paged) / static_cast<double>(fixed),
      fmt::format("{} over {} requests in 256 MiB; pages of 64 KiB over room for 4096 tokens; {}", paged, fixed, kMix)};
}

/// Least median of time with a block table over time without, of all lengths. All are timed in one run, when first
/// needed.
std::function<ClaimMeasurement()> speed_ratio(std::string phase, uint32_t block) {
  return [=] {
    static const StorageOptions options;
    static const std::vector<AttentionTime> times = attention_times(options);
    const auto of_block = std::find(options.blocks.begin(), options.blocks.end(), block) - options.blocks.begin();
    double least = 1e9;
    std::string how =
        fmt::format("one layer, 8 kv heads of 64, 32 heads, f16, blocks of {} over contiguous, {}", block, phase);
    for (const AttentionTime& time : times) {
      if (time.phase != phase) continue;
      const double ratio = time.ratio.at(static_cast<size_t>(of_block));
      least = std::min(least, ratio);
      how += fmt::format("; {} tokens {:.2f}", time.tokens, ratio);
    }
    return ClaimMeasurement{least, how};
  };
}

/// 16 layers that generate tokens behind a prompt, attention and appending alone.
class GeneratingLayers {
 public:
  static constexpr size_t kLayers = 16, kGiven = 1024, kGenerated = 600;

  explicit GeneratingLayers(bool ahead) {
    ledger_.page_pool().set_ahead(ahead);
    for (size_t i = 0; i < kLayers; ++i) {
      layers_.push_back(std::make_unique<DenseKv>(kShape, DType::kF16, 4096, kGiven, ledger_));
      example().feed(*layers_.back(), 0, kGiven);
    }
  }
  /// Generates token t; milliseconds.
  double generate(size_t t) {
    const auto start = std::chrono::steady_clock::now();
    for (const auto& layer : layers_) example().feed(*layer, t, 1);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }
  PagePool::Stats stats() { return ledger_.page_pool().stats(); }

 private:
  static constexpr KvShape kShape{8, 64, 64, 0};
  static const KvExample& example() {
    static const KvExample rows(kShape, 32, kGiven);
    return rows;
  }
  Ledger ledger_;
  std::vector<std::unique_ptr<DenseKv>> layers_;
};

/// Time that generated tokens wait for pages, over their time, with the background thread and without.
struct MappingTimes {
  struct Side {
    double waited = 0, behind = 0, total = 0,
           slowest = 0;  ///< Milliseconds of all rounds; of the slowest token the median.
    double share() const { return waited / total; }
  };
  Side with, without;
};

const MappingTimes& mapping_times() {
  static const MappingTimes times = [] {
    constexpr int kRounds = 5;
    MappingTimes out;
    std::vector<double> slowest[2];
    for (int round = 0; round < kRounds; ++round) {
      GeneratingLayers layers[] = {GeneratingLayers(true), GeneratingLayers(false)};
      for (size_t i = 0; i < 2; ++i) {
        MappingTimes::Side& side = i == 0 ? out.with : out.without;
        const PagePool::Stats before = layers[i].stats();
        double worst = 0;
        for (size_t t = 0; t < GeneratingLayers::kGenerated; ++t) {
          const double ms = layers[i].generate(t);
          side.total += ms;
          worst = std::max(worst, ms);
        }
        const PagePool::Stats after = layers[i].stats();
        side.waited += 1e3 * (after.map_seconds - before.map_seconds);
        side.behind += 1e3 * (after.ahead_seconds - before.ahead_seconds);
        slowest[i].push_back(worst);
      }
    }
    for (std::vector<double>& all : slowest) std::sort(all.begin(), all.end());
    out.with.slowest = slowest[0][kRounds / 2];
    out.without.slowest = slowest[1][kRounds / 2];
    return out;
  }();
  return times;
}

ClaimMeasurement mapping_share() {
  const MappingTimes& times = mapping_times();
  constexpr size_t kTokens = 5 * GeneratingLayers::kGenerated;
  return {times.with.share(),
          fmt::format("attention alone of 16 layers, 5 x {} tokens behind {}, blocks of 256 KiB mapped up to 16 tokens "
                      "before they are needed; without the thread {:.4f}; a token takes {:.3f} ms with the thread and "
                      "{:.3f} without, of which the thread has {:.4f} beside it",
                      GeneratingLayers::kGenerated, GeneratingLayers::kGiven, times.without.share(),
                      times.with.total / kTokens, times.without.total / kTokens, times.with.behind / kTokens)};
}

ClaimMeasurement slowest_token() {
  const MappingTimes& times = mapping_times();
  return {
      times.without.slowest / times.with.slowest,
      fmt::format("the same tokens; the slowest one of {}, median of 5 rounds: {:.2f} ms with the thread, {:.2f} ms "
                  "without; the mean token takes {:.2f} ms",
                  GeneratingLayers::kGenerated, times.with.slowest, times.without.slowest,
                  times.with.total / (5 * GeneratingLayers::kGenerated))};
}

ClaimMeasurement deferred_calls() {
  Ledger ledger;
  PagePool& pool = ledger.page_pool();
  const PagePool::Deferral deferral(pool);
  const KvShape shape{8, 64, 64, 0};
  uint64_t after_first = 0;
  for (int request = 0; request < 5; ++request) {
    std::vector<std::unique_ptr<DenseKv>> layers;
    for (int i = 0; i < 16; ++i) {
      layers.push_back(std::make_unique<DenseKv>(shape, DType::kF16, 4096, 512, ledger));
      layers.back()->reserve(2048);
    }
    pool.wait_for_ahead();  // the block behind a request that ends with one
    if (request == 0) after_first = pool.stats().map_calls;
  }
  return {static_cast<double>(pool.stats().map_calls - after_first),
          "16 layers, five equal requests of 2048 tokens one after another"};
}

/// Bytes of eight requests with a common beginning over those of the beginning once and their own last blocks.
ClaimMeasurement shared_prefix() {
  constexpr size_t kCommon = 4096, kOwn = 100, kRequests = 8;
  const KvShape shape{2, 16, 16, 0};
  const KvExample example(shape, 2, kCommon + kOwn);
  const uint64_t block = DenseKv::spec(shape, DType::kF16, 8192, 512).bytes(1);
  Ledger ledger;
  DenseKv first(shape, DType::kF16, 8192, 512, ledger);
  for (size_t done = 0; done < kCommon + kOwn; done += kOwn) {
    example.feed(first, done, std::min(kOwn, kCommon + kOwn - done));
  }
  std::vector<std::unique_ptr<LayerState>> others;
  for (size_t i = 1; i < kRequests; ++i) others.push_back(first.deep_copy());
  const auto taken = static_cast<double>(ledger.page_pool().file_bytes());
  return {taken / static_cast<double>(block * (kCommon / 256 + kRequests)),
          fmt::format(
              "8 requests of {} + {} tokens; memory of the file over {} blocks; eight copies would be {:.1f}", kCommon,
              kOwn, kCommon / 256 + kRequests,
              static_cast<double>(kRequests * (kCommon / 256 + 1)) / static_cast<double>(kCommon / 256 + kRequests))};
}

/// Bytes that are missing in the pool's account after any step, and mappings beyond the limit, of 3000 random steps.
ClaimMeasurement unaccounted() {
  constexpr size_t kUnit = 65536, kUnits = 64, kRanges = 8;
  Ledger ledger(256 * kUnit);
  PagePool& pool = ledger.page_pool();
  pool.set_most_mappings(64);
  PhiloxStream random(12);
  std::vector<MappedRange> ranges;
  for (size_t i = 0; i < kRanges; ++i) ranges.emplace_back(ledger, Tag::kKv, kUnit, kUnits * kUnit, "claim");
  uint64_t missing = 0, refused = 0, most = 0;
  for (int step = 0; step < 3000; ++step) {
    MappedRange& a = ranges[random.next_below(kRanges)];
    MappedRange& b = ranges[random.next_below(kRanges)];
    try {
      const uint64_t what = random.next_below(4);
      if (what < 2) {
        a.grow_to(std::min<size_t>(kUnits, a.committed() / kUnit + 1 + random.next_below(8)) * kUnit);
      } else if (what == 2) {
        a.shrink_to(random.next_below(static_cast<uint32_t>(a.committed() / kUnit + 1)) * kUnit);
      } else if (b.committed() > 0 && a.committed() < kUnits * kUnit && &a != &b) {
        if (const PageRun run = b.share(random.next_below(static_cast<uint32_t>(b.committed() / kUnit)))) a.append(run);
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kOutOfBudget) throw;
      ++refused;
    }
    const PagePool::Stats stats = pool.stats();
    const auto distance = [](uint64_t x, uint64_t y) { return x > y ? x - y : y - x; };
    missing =
        std::max({missing, distance(stats.used + stats.spare + stats.held, stats.allocated),
                  distance(ledger.used(Tier::kRam), stats.allocated), distance(pool.file_bytes(), stats.allocated)});
    most = std::max(most, stats.n_mappings);
  }
  return {static_cast<double>(missing), fmt::format("3000 random steps of growing, shrinking and sharing in 8 ranges; "
                                                    "{} refused by the ledger; at most {} mappings "
                                                    "with a limit of 64 for sharing",
                                                    refused, most)};
}

}  // namespace

std::vector<Claim> vattention_claims() {
  return {
      {"vattention", kPaper, "A contiguous context that grows by pages wastes almost no memory",
       "of the memory holds tokens",
       "96 % or more in use (PagedAttention, arXiv 2309.06180, the baseline it keeps up with)", 0.96, false,
       context_utilisation},
      {"vattention", kPaper, "Results do not depend on where blocks lie", "calls differ", "kernels unchanged", 0, true,
       same_bits},
      {"vattention", kPaper, "A request wastes at most one page of each tensor", "pages a tensor, the worst",
       "2 L P - 1 token", 1, true, of_mix("pages", [](const StorageWaste& w) { return w.most_units; })},
      {"vattention", kPaper, "and about half of one in the mean", "away from one half", "about half", 0.1, true,
       of_mix("pages of 64", [](const StorageWaste& w) { return std::abs(w.mean_units - 0.5); })},
      {"vattention", kPaper, "Room for the longest request wastes most of the memory", "wasted",
       "60 to 80 % (PagedAttention)", 0.6, false, of_mix("static", [](const StorageWaste& w) { return w.wasted; })},
      {"vattention", kPaper, "More requests fit the same memory", "times as many",
       "1.97x the throughput of vLLM, larger batches", 3, false, capacity},
      {"vattention", kPaper, "Reading a prompt is faster without a table of blocks of 16", "times the time",
       "1.45x to 3.92x", 1.1, false, speed_ratio("prefill", 16)},
      {"vattention", kPaper, "and not slower than with blocks of 64", "times the time", "no number", 0.98, false,
       speed_ratio("prefill", 64)},
      {"vattention", kPaper, "Answering is not slower than with blocks of 16", "times the time", "on par", 0.98, false,
       speed_ratio("decode", 16)},
      {"vattention", kPaper, "nor than with blocks of 64", "times the time", "on par", 0.98, false,
       speed_ratio("decode", 64)},
      {"vattention", kPaper, "Mapping takes under one percent of the time of answering", "of the time",
       "hidden by a worker", 0.01, true, mapping_share},
      {"vattention", kPaper, "The slowest token is slower where pages are mapped when they are needed", "times as slow",
       "latency of mapping is hidden", 1.1, false, slowest_token},
      {"vattention", kPaper, "With deferred reclamation, equal requests map nothing", "calls after the first request",
       "zero", 0, true, deferred_calls},
      {"vattention", kPaper, "Requests that begin alike have the beginning in memory once", "of what that takes",
       "page-aligned sharing", 1, true, shared_prefix},
      {"vattention", kPaper, "Every page is accounted for", "bytes missing", "no number", 0, true, unaccounted},
  };
}

}  // namespace mneme
