// faiss's IVF indexes on the data of `mneme bench ann`, for comparison. Two steps, so that the second can run in a
// control group with little memory (bench/README.md):
//
//   bench_ann_faiss build FOLDER METHOD SHAPE N QUERIES      METHOD: ondisk (IVF, vectors in a mapped file), sq4, pq64
//   bench_ann_faiss query FOLDER METHOD [CLIENTS [SECONDS]]  prints what `mneme bench ann --json` prints, for --draw
//
// ondisk keeps only the centres in RAM; sq4 and pq64 keep 64 bytes and an id of each vector.
#include <faiss/IndexFlat.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/index_io.h>
#include <faiss/invlists/OnDiskInvertedLists.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "budget/resident.h"
#include "eval/ann_benchmark.h"

namespace mneme::ann {
namespace {

using Number = faiss::Index::idx_t;

constexpr size_t kTrainingRows = 200000;

std::string index_path(const std::string& folder, const std::string& method) {
  return folder + "/faiss-" + method;
}

/// Questions and answers of a data set, so that asking needs no base vectors.
void write_questions(const std::string& path, const AnnDataset& data, double build_seconds) {
  Json json = {
      {"name", data.name},  {"metric", metric_name(data.metric)}, {"dimension", data.dimension}, {"k", data.k},
      {"n", data.n_base()}, {"build_seconds", build_seconds},     {"queries", data.queries},     {"truth", data.truth}};
  AtomicFile file(path);
  file.write(json.dump());
  file.commit();
}

void normalise(std::vector<float>& rows, size_t d) {
  for (size_t i = 0; i < rows.size(); i += d) {
    double sum = 0;
    for (size_t j = 0; j < d; ++j) sum += static_cast<double>(rows[i + j]) * rows[i + j];
    for (size_t j = 0; j < d; ++j) rows[i + j] = static_cast<float>(rows[i + j] / std::sqrt(sum));
  }
}

void build(const std::string& folder, const std::string& method, const std::string& shape, size_t n, size_t n_queries) {
  std::filesystem::create_directories(folder);
  AnnDataset data = make_ann_dataset(shape, n, n_queries, 10, 1);
  find_ann_truth(data);
  if (data.metric == Metric::kCosine) {  // on the unit sphere l2 and cosine have one order
    normalise(data.base, data.dimension);
    normalise(data.queries, data.dimension);
  }
  const size_t d = data.dimension,
               n_lists = std::max<size_t>(16, static_cast<size_t>(4 * std::sqrt(static_cast<double>(n))));
  const auto start = std::chrono::steady_clock::now();
  auto* centres = new faiss::IndexFlatL2(static_cast<Number>(d));
  std::unique_ptr<faiss::IndexIVF> index;
  if (method == "ondisk") {
    index = std::make_unique<faiss::IndexIVFFlat>(centres, d, n_lists);
  } else if (method == "sq4") {
    index = std::make_unique<faiss::IndexIVFScalarQuantizer>(centres, d, n_lists, faiss::ScalarQuantizer::QT_4bit);
  } else if (method == "pq64") {
    index = std::make_unique<faiss::IndexIVFPQ>(centres, d, n_lists, std::min<size_t>(64, d), 8);
  } else {
    fail(ErrorCode::kInvalidArgument, "[bench faiss] expected ondisk, sq4 or pq64, found '{}'", method);
  }
  index->own_fields = true;
  index->train(static_cast<Number>(std::min(n, kTrainingRows)), data.base.data());
  index->add(static_cast<Number>(n), data.base.data());
  if (method == "ondisk") {
    auto* lists =
        new faiss::OnDiskInvertedLists(n_lists, index->code_size, (index_path(folder, method) + ".lists").c_str());
    const faiss::InvertedLists* from[] = {index->invlists};
    lists->merge_from(from, 1);
    index->replace_invlists(lists, true);
  }
  faiss::write_index(index.get(), index_path(folder, method).c_str());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_questions(index_path(folder, method) + ".questions", data, seconds);
  fmt::print("built in {:.1f} s\n", seconds);
}

/// Makes the kernel forget the cached pages of a file.
void forget(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY);
  if (file < 0) return;
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

void query(const std::string& folder, const std::string& method, size_t clients, double seconds) {
  const std::string path = index_path(folder, method);
  AnnDataset data;
  AnnCurve curve;
  size_t n = 0;
  {
    const Json json = parse_json(read_text_file(path + ".questions"), path);
    data.name = json.at("name").get<std::string>();
    data.dimension = json.at("dimension").get<size_t>();
    data.k = json.at("k").get<size_t>();
    data.queries = json.at("queries").get<std::vector<float>>();
    data.truth = json.at("truth").get<std::vector<uint64_t>>();
    curve.build_seconds = json.at("build_seconds").get<double>();
    n = json.at("n").get<size_t>();
  }
  if (method == "ondisk") forget(path + ".lists");
  const std::unique_ptr<faiss::Index> opened(faiss::read_index(path.c_str()));
  auto* index = dynamic_cast<faiss::IndexIVF*>(opened.get());
  if (index == nullptr) fail(ErrorCode::kCorruptData, "[bench faiss] {}: expected an IVF index", path);
  const auto k = static_cast<Number>(data.k);
  for (size_t n_probe : {1, 2, 4, 8, 16, 32, 64, 128}) {
    index->nprobe = n_probe;
    curve.points.push_back(measure_ann(data, clients, seconds, [&](size_t i) {
      omp_set_num_threads(1);
      std::vector<float> distances(data.k);
      std::vector<Number> ids(data.k);
      index->search(1, data.queries.data() + i * data.dimension, k, distances.data(), ids.data());
      SearchResult result;
      for (size_t j = 0; j < data.k; ++j) {
        if (ids[j] >= 0) result.hits.push_back({static_cast<uint64_t>(ids[j]), distances[j]});
      }
      return result;
    }));
    curve.points.back().setting = fmt::format("nprobe {}", n_probe);
  }
  curve.method = "faiss ivf " + method;
  const size_t centres = index->nlist * data.dimension * 4;
  curve.ram_bytes = centres + (method == "ondisk" ? 0 : n * (index->code_size + 8));
  curve.disk_bytes = method == "ondisk" ? std::filesystem::file_size(path + ".lists") : 0;
  curve.resident_bytes = resident_bytes();
  fmt::print("{}\n", Json{{"bench", "ann"},
                          {"data", {{"name", data.name}, {"vectors", n}}},
                          {"clients", clients},
                          {"curve", to_json(curve)}}
                         .dump(2));
}

}  // namespace
}  // namespace mneme::ann

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 6 && arguments[0] == "build") {
      mneme::ann::build(arguments[1], arguments[2], arguments[3], std::stoull(arguments[4]), std::stoull(arguments[5]));
    } else if (arguments.size() >= 3 && arguments[0] == "query") {
      mneme::ann::query(arguments[1], arguments[2], arguments.size() > 3 ? std::stoull(arguments[3]) : 1,
                        arguments.size() > 4 ? std::stod(arguments[4]) : 1);
    } else {
      fmt::print(
          stderr,
          "usage: bench_ann_faiss build FOLDER METHOD SHAPE N QUERIES | query FOLDER METHOD [CLIENTS [SECONDS]]\n");
      return 2;
    }
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
  return 0;
}
