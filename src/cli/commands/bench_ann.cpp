#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/html_report.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "budget/resident.h"
#include "cli/commands.h"
#include "context/async_reader.h"
#include "eval/ann_benchmark.h"
#include "recall/index/hnsw_index.h"
#include "recall/index/index_choice.h"

namespace mneme::cli {
namespace {

using namespace ann;

struct AnnCommand {
  std::string shape = "skewed", base, queries, index = "auto", folder, memory, metric = "l2", values = "i8";
  std::string html;
  std::vector<std::string> draw;
  std::vector<size_t> lists = {2, 4, 8, 16, 32, 64}, ef = {10, 16, 32, 64, 128};
  size_t n = 100000, n_queries = 500, k = 10, clients = 1;
  uint64_t seed = 1;
  double churn = 0, seconds = 1;
  float prune = 2;
  bool verify = false;
  SpannOptions spann;

  std::string index_folder() const { return folder.empty() ? "ann-index" : folder; }
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

AnnDataset load_data(const AnnCommand& command) {
  if (command.base.empty())
    return make_ann_dataset(command.shape, command.n, command.n_queries, command.k, command.seed);
  if (command.queries.empty())
    fail(ErrorCode::kInvalidArgument, "[bench ann] expected --queries beside --base, found none");
  AnnDataset data;
  data.name = std::filesystem::path(command.base).filename().string();
  data.metric = parse_metric(command.metric);
  data.k = command.k;
  size_t dimension = 0;
  data.base = read_fvecs(command.base, command.n, &data.dimension);
  data.queries = read_fvecs(command.queries, command.n_queries, &dimension);
  if (dimension != data.dimension) {
    fail(ErrorCode::kInvalidArgument, "[bench ann] {}: expected rows of {} values, found {}", command.queries,
         data.dimension, dimension);
  }
  return data;
}

/// The index that an earlier run left in `folder`, or null.
std::unique_ptr<VectorIndex> open_kept(const AnnCommand& command, IndexKind kind, const std::string& folder,
                                       Ledger& ledger) {
  if (kind == IndexKind::kSpann && std::filesystem::exists(folder + "/heads")) {
    return SpannIndex::open(ledger, folder, command.spann);
  }
  if (kind == IndexKind::kHnsw && std::filesystem::exists(folder + "/graph"))
    return HnswIndex::load(ledger, folder + "/graph");
  return nullptr;
}

/// The index over data.base: the one in the folder when it is there, otherwise a new one. SPANN always lives in a
/// folder, a graph is kept when the user names one.
std::unique_ptr<VectorIndex> open_or_build(const AnnCommand& command, IndexKind kind, const AnnDataset& data,
                                           Ledger& ledger, double* build_seconds) {
  const std::string folder = command.index_folder();
  if (auto index = open_kept(command, kind, folder, ledger)) {
    if (index->dimension() != data.dimension || index->size() != data.n_base() || index->metric() != data.metric) {
      fail(ErrorCode::kInvalidArgument, "[bench ann] {}: expected an index of {} vectors of {} values, found {} of {}",
           folder, data.n_base(), data.dimension, index->size(), index->dimension());
    }
    return index;
  }
  const auto start = std::chrono::steady_clock::now();
  auto index = make_vector_index(kind, ledger, data.dimension, data.metric, folder, command.spann);
  std::vector<uint64_t> ids(data.n_base());
  std::iota(ids.begin(), ids.end(), uint64_t{0});
  index->add(ids, data.base);
  if (kind == IndexKind::kSpann) index->save(folder);
  *build_seconds = seconds_since(start);
  if (kind == IndexKind::kHnsw && !command.folder.empty()) {
    std::filesystem::create_directories(folder);
    index->save(folder + "/graph");
  }
  return index;
}

/// Replaces a part of the vectors by new ones, in pieces: removals, then additions. Returns seconds.
double churn(VectorIndex& index, AnnDataset& data, const AnnCommand& command) {
  const size_t d = data.dimension, n = static_cast<size_t>(command.churn * static_cast<double>(data.n_base()));
  const AnnDataset fresh = make_ann_dataset(command.shape, data.n_base() + n, 1, 1, command.seed);
  std::vector<uint64_t> ids(data.n_base());
  std::iota(ids.begin(), ids.end(), uint64_t{0});
  PhiloxStream random(command.seed, 7);
  for (size_t i = 0; i < n; ++i) std::swap(ids[i], ids[i + random.next_below(ids.size() - i)]);
  const auto start = std::chrono::steady_clock::now();
  constexpr size_t kPiece = 1000;
  for (size_t begin = 0; begin < n; begin += kPiece) {
    const size_t end = std::min(n, begin + kPiece);
    const auto piece = std::span(ids).subspan(begin, end - begin);
    const auto rows = std::span(fresh.base).subspan((data.n_base() + begin) * d, piece.size() * d);
    index.remove(piece);
    index.add(piece, rows);
    for (size_t i = 0; i < piece.size(); ++i) std::copy_n(rows.data() + i * d, d, data.base.data() + piece[i] * d);
  }
  if (index.stats().kind == "spann") index.save(command.index_folder());
  return seconds_since(start);
}

std::vector<AnnPoint> measure(const VectorIndex& index, const AnnDataset& data, const AnnCommand& command) {
  const std::string kind = index.stats().kind;
  std::vector<AnnPoint> points;
  const auto run = [&](std::string setting, SearchParameters parameters) {
    parameters.k = data.k;
    parameters.prune = command.prune;
    points.push_back(measure_ann(data, command.clients, command.seconds, [&](size_t i) {
      return index.search(std::span(data.queries).subspan(i * data.dimension, data.dimension), parameters);
    }));
    points.back().setting = std::move(setting);
  };
  SearchParameters parameters;
  if (kind == "spann") {
    for (size_t lists : command.lists) {
      parameters.lists = lists;
      run(fmt::format("lists {}", lists), parameters);
    }
  } else if (kind == "hnsw") {
    for (size_t ef : command.ef) {
      parameters.ef = ef;
      run(fmt::format("ef {}", ef), parameters);
    }
  } else {
    run("all", parameters);
  }
  return points;
}

void print_curve(const AnnCurve& curve) {
  fmt::print("{}: {} of RAM by the ledger, process {}, on disk {}", curve.method, format_byte_size(curve.ram_bytes),
             format_byte_size(curve.resident_bytes), format_byte_size(curve.disk_bytes));
  if (curve.build_seconds > 0) fmt::print(", built in {:.1f} s", curve.build_seconds);
  fmt::print("\n{:<10} {:>8} {:>10} {:>8} {:>8} {:>8} {:>9} {:>7} {:>9}\n", "setting", "recall", "queries/s", "p50 ms",
             "p95 ms", "p99 ms", "compared", "lists", "read");
  for (const AnnPoint& p : curve.points) {
    const double n = static_cast<double>(std::max<uint64_t>(1, p.n_queries));
    fmt::print("{:<10} {:>8.4f} {:>10.0f} {:>8.3f} {:>8.3f} {:>8.3f} {:>9.0f} {:>7.1f} {:>9}\n", p.setting, p.recall,
               p.queries_per_second, p.p50_ms, p.p95_ms, p.p99_ms, static_cast<double>(p.cost.vectors_compared) / n,
               static_cast<double>(p.cost.lists_read) / n,
               format_byte_size(static_cast<uint64_t>(static_cast<double>(p.cost.bytes_read) / n)));
  }
}

void write_html(const std::string& path, std::string_view title, const std::vector<AnnCurve>& curves) {
  HtmlReport report(title);
  report.chart(ann_chart(title, curves));
  const std::vector<std::string> header = {"method", "setting", "recall", "queries/s",
                                           "p50 ms", "p99 ms",  "RAM",    "process"};
  std::vector<std::vector<std::string>> rows;
  for (const AnnCurve& curve : curves) {
    for (const AnnPoint& p : curve.points) {
      rows.push_back({curve.method, p.setting, fmt::format("{:.4f}", p.recall),
                      fmt::format("{:.0f}", p.queries_per_second), fmt::format("{:.3f}", p.p50_ms),
                      fmt::format("{:.3f}", p.p99_ms), format_byte_size(curve.ram_bytes),
                      format_byte_size(curve.resident_bytes)});
    }
  }
  report.table(header, rows);
  AtomicFile file(path);
  file.write(report.page());
  file.commit();
}

void draw(const AnnCommand& command) {
  std::vector<AnnCurve> curves;
  for (const std::string& path : command.draw) {
    const Json json = parse_json(read_text_file(path), path);
    if (!json.contains("curve")) fail(ErrorCode::kCorruptData, "[bench ann] {}: expected what --json prints", path);
    curves.push_back(ann_curve_from_json(json["curve"]));
  }
  write_html(command.html, "Nearest neighbours", curves);
}

void run_ann(AnnCommand command, const GlobalOptions& global) {
  if (!command.draw.empty()) {
    if (command.html.empty())
      fail(ErrorCode::kInvalidArgument, "[bench ann] expected --html beside --draw, found none");
    return draw(command);
  }
  if (command.churn > 0 && !command.base.empty()) {
    fail(ErrorCode::kInvalidArgument, "[bench ann] expected a generated set for --churn, found --base");
  }
  command.spann.values = parse_vector_type(command.values);
  const uint64_t memory = command.memory.empty() ? machine_memory_bytes() : parse_byte_size(command.memory);
  AnnDataset data = load_data(command);
  const IndexKind kind = command.index == "exact"   ? IndexKind::kExact
                         : command.index == "hnsw"  ? IndexKind::kHnsw
                         : command.index == "spann" ? IndexKind::kSpann
                                                    : choose_index_kind(data.n_base(), data.dimension, memory);
  Ledger ledger;
  AnnCurve curve;
  auto index = open_or_build(command, kind, data, ledger, &curve.build_seconds);
  double churn_seconds = 0;
  if (command.churn > 0) churn_seconds = churn(*index, data, command);
  find_ann_truth(data);
  const size_t n = data.n_base();
  std::vector<float>().swap(data.base);  // so that the resident size is the index's
  if (command.verify) index->verify();
  curve.points = measure(*index, data, command);
  const IndexStats stats = index->stats();
  curve.method = stats.kind;
  curve.ram_bytes = stats.ram_bytes;
  curve.disk_bytes = stats.disk_bytes;
  curve.resident_bytes = resident_bytes();
  if (!command.html.empty())
    write_html(command.html, fmt::format("{} among {} vectors ({})", curve.method, n, data.name), {curve});
  if (global.json) {
    fmt::print("{}\n", Json{{"bench", "ann"},
                            {"data",
                             {{"name", data.name},
                              {"vectors", n},
                              {"dimension", data.dimension},
                              {"metric", metric_name(data.metric)},
                              {"queries", data.n_queries()},
                              {"k", data.k}}},
                            {"threads", n_threads()},
                            {"clients", command.clients},
                            {"io_uring", AsyncReader::has_ring()},
                            {"churn", command.churn},
                            {"churn_seconds", churn_seconds},
                            {"verified", command.verify},
                            {"stats",
                             {{"vectors", stats.vectors},
                              {"heads", stats.heads},
                              {"copies", stats.copies},
                              {"largest_list", stats.largest_list},
                              {"lists_over_limit", stats.lists_over_limit},
                              {"dead", stats.dead_vectors},
                              {"splits", stats.splits},
                              {"merges", stats.merges}}},
                            {"curve", to_json(curve)}}
                           .dump(2));
    return;
  }
  fmt::print("{} vectors of {} values ({}, {}), {} questions\n", n, data.dimension, data.name, metric_name(data.metric),
             data.n_queries());
  if (stats.heads > 0) {
    fmt::print("{} heads, {:.2f} copies a vector, longest list {} (limit passed by {}); {}\n", stats.heads,
               stats.copies, stats.largest_list, stats.lists_over_limit,
               AsyncReader::has_ring() ? "lists read by io_uring" : "lists read one by one: io_uring is refused here");
  }
  if (command.churn > 0) {
    fmt::print("replaced {:.0f} % in {:.1f} s; {} splits, {} dissolved, {} dead in lists\n", 100 * command.churn,
               churn_seconds, stats.splits, stats.merges, stats.dead_vectors);
  }
  print_curve(curve);
}

}  // namespace

void add_bench_ann(CLI::App& bench, GlobalOptions& global) {
  auto command = std::make_shared<AnnCommand>();
  CLI::App* ann = bench.add_subcommand("ann", "Nearest neighbours: recall against queries a second against RAM");
  ann->add_option("--index", command->index, "exact, hnsw, spann, or auto: by size and --memory")
      ->capture_default_str()
      ->check(CLI::IsMember({"exact", "hnsw", "spann", "auto"}));
  ann->add_option("-m,--memory", command->memory,
                  "RAM for the index, e.g. 100M; auto looks at it (default: the machine's)");
  ann->add_option("--shape", command->shape, "Generated vectors: skewed (128 values), isotropic (32), cosine (256)")
      ->capture_default_str();
  ann->add_option("--base", command->base, "Vectors from a .fvecs file instead");
  ann->add_option("--queries", command->queries, "Questions from a .fvecs file, with --base");
  ann->add_option("--metric", command->metric, "Of --base: l2, ip, cosine")->capture_default_str();
  ann->add_option("-n,--vectors", command->n, "Vectors, at most")
      ->capture_default_str()
      ->check(CLI::Range(size_t{1}, size_t{1} << 31));
  ann->add_option("-q,--questions", command->n_queries, "Questions")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  ann->add_option("-k", command->k, "Hits wanted")->capture_default_str()->check(CLI::Range(1, 10000));
  ann->add_option("--seed", command->seed, "Of generated vectors")->capture_default_str();
  ann->add_option("--folder", command->folder,
                  "Where a SPANN or HNSW index is made, or opened when it is there (SPANN: by default ann-index)");
  ann->add_option("--values", command->values, "SPANN: vectors in lists as f32, f16 or i8")->capture_default_str();
  ann->add_option("--leaf", command->spann.leaf, "SPANN: vectors of one head when built")->capture_default_str();
  ann->add_option("--copies", command->spann.closure.copies, "SPANN: lists a vector is in, at most")
      ->capture_default_str();
  ann->add_option("--rng", command->spann.closure.rng_factor,
                  "SPANN: how near in direction two lists of a vector may be; more means more copies")
      ->capture_default_str();
  ann->add_option("--reach", command->spann.closure.reach,
                  "SPANN: lists up to this times the nearest head's squared distance get a copy")
      ->capture_default_str();
  ann->add_option("--lists", command->lists, "SPANN: lists read, one measurement each")
      ->delimiter(',')
      ->capture_default_str();
  ann->add_option("--prune", command->prune,
                  "SPANN: lists up to this times the nearest head's squared distance are read")
      ->capture_default_str();
  ann->add_option("--ef", command->ef, "HNSW: candidates, one measurement each")->delimiter(',')->capture_default_str();
  ann->add_option("--clients", command->clients, "Threads that ask")->capture_default_str()->check(CLI::Range(1, 256));
  ann->add_option("--seconds", command->seconds, "Of one measurement, at least")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  ann->add_option("--churn", command->churn, "First replace this part of the vectors by others")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  ann->add_flag("--verify", command->verify, "Check the whole index before measuring");
  ann->add_option("--html", command->html, "Write a page with a plot");
  ann->add_option("--draw", command->draw, "Only draw the results of earlier runs with --json into --html");
  ann->footer("Example: mneme bench ann --index spann -n 200000 --lists 8,16,32 --html ann.html");
  ann->callback([command, &global] { run_ann(*command, global); });
}

}  // namespace mneme::cli
