// The search for vectors in one user's memory: a scan of the tables beside each kind of index.
//   bench_recall_vectors [--vectors 50000] [--dimension 384] [--queries 200] [--memory 1G] [--store
//   PATH|postgres://...]
// Prints, for each way, the time to make the index, to open it in a new process's place and search once, the median and
// 95th percentile of warm searches for 10 records, and which part of what the scan finds is found. Vectors are those of
// VectorMixture, uneven.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/byte_size.h"
#include "base/error.h"
#include "recall/index/unit_length.h"
#include "recall/index/vector_mixture.h"
#include "recall/kept/vector_search.h"
#include "recall/store.h"

namespace {

using namespace mneme;
using namespace mneme::recall;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

struct Options {
  uint64_t vectors = 50'000, dimension = 384, queries = 200, memory = uint64_t{1} << 30;
  std::string store = "/tmp/bench-recall-vectors/memory.db";
};

Options options_of(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--vectors") o.vectors = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--dimension") o.dimension = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--queries") o.queries = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--memory") o.memory = parse_byte_size(value);
    if (name == "--store") o.store = value;
  }
  return o;
}

std::vector<float> rows(const Options& o, uint64_t first, size_t n) {
  ann::MixtureOptions mixture;
  mixture.dimension = o.dimension;
  std::vector<float> rows(n * o.dimension);
  ann::VectorMixture(mixture).rows(first, rows);
  return rows;
}

void add_vectors(Store& store, const Options& o) {
  constexpr size_t kBatch = 1000;
  const Clock::time_point begin = Clock::now();
  for (uint64_t done = 0; done < o.vectors; done += kBatch) {
    const std::vector<float> all = rows(o, done, kBatch);
    std::vector<Record> records;
    std::vector<std::vector<float>> vectors;
    for (size_t i = 0; i < kBatch; ++i) {
      Record record;
      record.text = fmt::format("record number {}", done + i);
      records.push_back(std::move(record));
      const auto row = all.begin() + static_cast<ptrdiff_t>(i * o.dimension);
      vectors.emplace_back(row, row + static_cast<ptrdiff_t>(o.dimension));
    }
    store.add(records, vectors);
  }
  fmt::print("added {} vectors of {} numbers in {:.1f} s\n", o.vectors, o.dimension, ms_since(begin) / 1e3);
}

std::vector<VectorMatch> find(Store& store, std::span<const float> query, VectorSearchCost& cost) {
  std::vector<float> unit(query.size());
  ann::to_unit_length(query, unit);
  std::vector<VectorMatch> matches;
  store.read({}, [&] {
    matches = store.vectors().match(store.scope_number({}), unit, sql_condition({}, store.clock()), 10, cost);
  });
  return matches;
}

void measure(const Options& o, const std::string& way, std::vector<std::vector<VectorMatch>>& right) {
  Ledger ledger(o.memory);
  StoreOptions options;
  options.ledger = &ledger;
  options.cache_bytes = o.memory / 8;
  options.index_kind = way == "scan" ? "" : way;
  options.index_folder = o.store + ".index-" + way;
  if (way == "scan") options.index_from = ~uint64_t{0} >> 1;
  double made = 0;
  if (way != "scan") {
    std::filesystem::remove_all(options.index_folder);
    const auto store = Store::open(o.store, options);
    const Clock::time_point begin = Clock::now();
    store->vectors().refresh({});
    made = ms_since(begin);
  }
  const std::vector<float> queries = rows(o, uint64_t{1} << 32, o.queries);
  const auto query = [&](size_t q) { return std::span(queries).subspan(q * o.dimension, o.dimension); };
  const auto store = Store::open(o.store, options);
  VectorSearchCost cost;
  Clock::time_point begin = Clock::now();
  find(*store, query(0), cost);
  const double first = ms_since(begin);
  std::vector<double> ms;
  size_t same = 0, all = 0;
  const size_t n = way == "scan" ? std::min<size_t>(o.queries, right.size()) : o.queries;
  for (size_t q = 0; q < n; ++q) {
    begin = Clock::now();
    const std::vector<VectorMatch> found = find(*store, query(q), cost);
    ms.push_back(ms_since(begin));
    if (way == "scan") {
      right[q] = found;
      continue;
    }
    if (q >= right.size()) continue;
    all += right[q].size();
    for (const VectorMatch& match : right[q]) {
      same += std::any_of(found.begin(), found.end(), [&](const VectorMatch& f) { return f.record == match.record; });
    }
  }
  std::sort(ms.begin(), ms.end());
  uint64_t bytes = 0;
  for (const std::string& file : store->vectors().files()) bytes += std::filesystem::file_size(file);
  fmt::print(
      "{:<6} made in {:.1f} s; opened and searched in {:.1f} ms; a search {:.2f} ms, p95 {:.2f}; recall {}; RAM {}, "
      "files {}{}\n",
      cost.way, made / 1e3, first, ms[ms.size() / 2], ms[ms.size() * 95 / 100],
      way == "scan" ? "1" : fmt::format("{:.3f}", static_cast<double>(same) / static_cast<double>(all)),
      format_byte_size(ledger.used(Tier::kRam, Tag::kIndex)), format_byte_size(bytes),
      cost.why_scan.empty() || way == "scan" ? "" : " (" + cost.why_scan + ")");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options o = options_of(argc, argv);
    {
      const auto store = Store::open(o.store);
      if (store->stats("default").vectors < o.vectors) add_vectors(*store, o);
    }
    std::vector<std::vector<VectorMatch>> right(std::min<size_t>(o.queries, 50));
    for (const char* way : {"scan", "exact", "hnsw", "spann"}) measure(o, way, right);
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
