// Long-term memory at size: adds records of many users in batches, then searches with filters.
//   bench_recall [--records 1000000] [--users 10000] [--memory 1G] [--queries 5000] [--store PATH|postgres://...]
// The store's page cache is half of --memory; the largest resident size of the process is reported beside the limit.

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/philox.h"
#include "recall/search/search.h"
#include "recall/store.h"
#include "recall/time_text.h"

namespace {

using namespace mneme;
using namespace mneme::recall;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Words whose frequency falls as one over their rank, as in a language.
class Words {
 public:
  explicit Words(uint64_t seed) : random_(seed) {
    for (int i = 0; i < 30'000; ++i) {
      std::string word;
      for (uint64_t n = 2 + random_.next_below(3); n > 0; --n) {
        word += "bcdfghklmnprstvz"[random_.next_below(16)];
        word += "aeiou"[random_.next_below(5)];
      }
      words_.push_back(word);
    }
  }
  const std::string& word() {
    const double rank = std::pow(static_cast<double>(words_.size()), random_.next_double());
    return words_[std::min(static_cast<size_t>(rank), words_.size() - 1)];
  }
  std::string name() {
    std::string name = words_[random_.next_below(2000)];
    name[0] = static_cast<char>(name[0] - 32);
    return name;
  }
  std::string sentence() {
    std::string text = name();
    for (uint64_t n = 8 + random_.next_below(12); n > 0; --n) text += " " + word();
    return text + " in " + name() + ".";
  }
  PhiloxStream& random() { return random_; }

 private:
  PhiloxStream random_;
  std::vector<std::string> words_;
};

struct Options {
  uint64_t records = 1'000'000, users = 10'000, queries = 5000, memory = uint64_t{1} << 30;
  std::string store = "/tmp/bench-recall/memory.db";
};

Options options_of(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--records") o.records = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--users") o.users = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--queries") o.queries = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--memory") o.memory = parse_byte_size(value);
    if (name == "--store") o.store = value;
  }
  return o;
}

void add_records(Store& store, const Options& o, Words& words) {
  constexpr size_t kBatch = 1000;
  constexpr Kind kKinds[] = {Kind::kFact, Kind::kNote, Kind::kEpisode};
  const Clock::time_point begin = Clock::now();
  Clock::time_point part = begin;
  std::vector<double> batch_ms;
  const Time start = parse_time("2025-01-01");
  for (uint64_t done = 0; done < o.records;) {
    std::vector<Record> batch;
    for (size_t i = 0; i < std::min<uint64_t>(kBatch, o.records - done); ++i) {
      Record r;
      r.scope.user = fmt::format("user{}", words.random().next_below(o.users));
      r.kind = kKinds[words.random().next_below(3)];
      r.scope.session = fmt::format("session{}", (done + i) * 5 / o.records);
      r.speaker = (done + i) % 2 == 0 ? "Ann" : "Bo";
      r.text = words.sentence();
      r.tags = {fmt::format("topic{}", words.random().next_below(10))};
      r.importance = words.random().next_double();
      r.event_time =
          start + static_cast<Time>(words.random().next_below(365)) * kMicrosPerDay + static_cast<Time>(done + i);
      batch.push_back(std::move(r));
    }
    const Clock::time_point before = Clock::now();
    store.add(batch);
    batch_ms.push_back(seconds_since(before) * 1e3);
    done += batch.size();
    if (done % 100'000 == 0) {
      fmt::print("{:>8} records, {:.0f}/s\n", done, 100'000 / seconds_since(part));
      std::fflush(stdout);
      part = Clock::now();
    }
  }
  std::sort(batch_ms.begin(), batch_ms.end());
  fmt::print("added {} records of {} users in {:.1f} s: {:.0f}/s; a batch of {}: median {:.0f} ms, p95 {:.0f} ms\n",
             o.records, o.users, seconds_since(begin), static_cast<double>(o.records) / seconds_since(begin), kBatch,
             batch_ms[batch_ms.size() / 2], batch_ms[batch_ms.size() * 95 / 100]);
}

void search_records(Store& store, const Options& o, Words& words) {
  std::vector<double> ms;
  uint64_t hits = 0, foreign = 0, candidates = 0;
  for (uint64_t q = 0; q < o.queries; ++q) {
    Query query;
    query.scope.user = fmt::format("user{}", words.random().next_below(o.users));
    query.text = words.word() + " " + words.word() + " " + words.word() + " " + words.name();
    if (q % 2 == 0) query.filter.tags = {fmt::format("topic{}", words.random().next_below(10))};
    if (q % 3 == 0) query.filter.kinds = {Kind::kFact, Kind::kEpisode};
    if (q % 5 == 0) query.filter.event_from = parse_time("2025-06-01");
    query.filter.min_importance = 0.1;
    const Clock::time_point before = Clock::now();
    const SearchResult result = search(store, query);
    ms.push_back(seconds_since(before) * 1e3);
    hits += result.hits.size();
    candidates += result.n_candidates;
    for (const Hit& hit : result.hits) foreign += hit.record.scope.user != query.scope.user;
  }
  std::sort(ms.begin(), ms.end());
  const auto n = static_cast<double>(o.queries);
  fmt::print("{} searches with filters: median {:.2f} ms, p95 {:.2f} ms, p99 {:.2f} ms, most {:.1f} ms\n", o.queries,
             ms[ms.size() / 2], ms[ms.size() * 95 / 100], ms[ms.size() * 99 / 100], ms.back());
  fmt::print("per search {:.1f} hits of {:.1f} candidates; {} of other users\n", static_cast<double>(hits) / n,
             static_cast<double>(candidates) / n, foreign);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options o = options_of(argc, argv);
    Ledger ledger(o.memory);
    StoreOptions options;
    options.cache_bytes = o.memory / 2;
    options.ledger = &ledger;
    const auto store = Store::open(o.store, options);
    Words words(7);
    if (store->stats("default").active < o.records) add_records(*store, o, words);
    search_records(*store, o, words);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    fmt::print("largest resident size {}, limit {}; files {}\n",
               format_byte_size(static_cast<uint64_t>(usage.ru_maxrss) * 1024), format_byte_size(o.memory),
               format_byte_size(store->stats("default").bytes));
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
