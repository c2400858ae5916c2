#include "eval/ann_benchmark.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/parallel.h"
#include "kernels/vector_distance.h"
#include "kernels/vector_ops.h"
#include "recall/index/top_k.h"
#include "recall/index/vector_mixture.h"

namespace mneme::ann {

AnnDataset make_ann_dataset(std::string_view shape, size_t n, size_t n_queries, size_t k, uint64_t seed) {
  AnnDataset data;
  MixtureOptions options;
  options.seed = seed;
  if (shape == "isotropic") {
    options.dimension = 32;
    options.decay = 0;
    options.centre_scale = 1;
  } else if (shape == "cosine") {
    options.dimension = 256;
    data.metric = Metric::kCosine;
  } else if (shape != "skewed") {
    fail(ErrorCode::kInvalidArgument, "[bench ann] expected skewed, isotropic or cosine, found '{}'", shape);
  }
  data.name = shape;
  data.dimension = options.dimension;
  data.k = k;
  const VectorMixture mixture(options);
  data.base.resize(n * data.dimension);
  data.queries.resize(n_queries * data.dimension);
  mixture.rows(0, data.base);
  mixture.rows(uint64_t{1} << 40, data.queries);
  return data;
}

std::vector<float> read_fvecs(const std::string& path, size_t most, size_t* dimension) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  std::vector<float> rows;
  uint32_t first = 0;
  for (size_t at = 0, n = 0; at < bytes.size() && n < most; ++n) {
    uint32_t d = 0;
    if (bytes.size() - at >= 4) std::memcpy(&d, bytes.data() + at, 4);
    if (n == 0) first = d;
    if (d == 0 || d > kMaxDimension || d != first || bytes.size() - at < 4 + size_t{d} * 4) {
      fail(ErrorCode::kCorruptData, "[read fvecs] {}: expected {} values of row {} at offset {}, found {} and {} bytes",
           path, first, n, at, d, bytes.size() - at);
    }
    rows.resize(rows.size() + d);
    std::memcpy(rows.data() + rows.size() - d, bytes.data() + at + 4, size_t{d} * 4);
    at += 4 + size_t{d} * 4;
  }
  if (rows.empty()) fail(ErrorCode::kCorruptData, "[read fvecs] {}: expected rows, found none", path);
  *dimension = first;
  return rows;
}

void find_ann_truth(AnnDataset& data) {
  const size_t d = data.dimension, n = data.n_base(), n_queries = data.n_queries(), k = std::min(data.k, n);
  if (k == 0) fail(ErrorCode::kInvalidArgument, "[bench ann] expected vectors to search among, found none");
  data.k = k;
  data.truth.assign(n_queries * k, 0);
  std::vector<float> inverse(data.metric == Metric::kCosine ? n : 0);
  const auto dot = kernels::vector_ops().dot;
  const auto l2 = kernels::distance_ops().l2_f32;
  for (size_t i = 0; i < inverse.size(); ++i) {
    inverse[i] = 1 / std::sqrt(dot(data.base.data() + i * d, data.base.data() + i * d, d));
  }
  // Blocks of rows that stay in the cache while several questions are compared with them.
  constexpr size_t kBlock = 256, kQuestions = 16;
  parallel_dynamic((n_queries + kQuestions - 1) / kQuestions, [&](size_t group) {
    const size_t first = group * kQuestions, last = std::min(n_queries, first + kQuestions);
    std::vector<TopK> best(last - first, TopK(k));
    for (size_t block = 0; block < n; block += kBlock) {
      for (size_t q = first; q < last; ++q) {
        const float* query = data.queries.data() + q * d;
        for (size_t i = block; i < std::min(n, block + kBlock); ++i) {
          const float* row = data.base.data() + i * d;
          const float distance = data.metric == Metric::kL2             ? l2(query, row, d)
                                 : data.metric == Metric::kInnerProduct ? -dot(query, row, d)
                                                                        : -dot(query, row, d) * inverse[i];
          if (best[q - first].may_enter(distance)) best[q - first].offer({i, distance});
        }
      }
    }
    for (size_t q = first; q < last; ++q) {
      const std::vector<Hit> hits = best[q - first].take();
      for (size_t i = 0; i < k; ++i) data.truth[q * k + i] = hits[i].id;
    }
  });
}

AnnPoint measure_ann(const AnnDataset& data, size_t threads, double seconds,
                     const std::function<SearchResult(size_t i)>& search) {
  using Clock = std::chrono::steady_clock;
  const size_t n = data.n_queries(), k = data.k;
  AnnPoint point;
  point.n_queries = n;
  uint64_t found = 0;
  for (size_t i = 0; i < n; ++i) {  // a first pass, for recall and cost; it also warms up
    const SearchResult result = search(i);
    const auto right = data.truth.begin() + static_cast<ptrdiff_t>(i * k);
    for (const Hit& hit : result.hits)
      found += std::find(right, right + static_cast<ptrdiff_t>(k), hit.id) != right + static_cast<ptrdiff_t>(k) ? 1 : 0;
    point.cost += result.cost;
  }
  point.recall = static_cast<double>(found) / static_cast<double>(n * k);

  std::vector<std::vector<float>> times(threads);
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  const auto start = Clock::now();
  const auto ask = [&](size_t thread) {
    try {
      while (!failed) {
        const size_t question = next.fetch_add(1);
        if (question % n == 0 && std::chrono::duration<double>(Clock::now() - start).count() >= seconds && question > 0)
          break;
        if (question >= n && std::chrono::duration<double>(Clock::now() - start).count() >= 1.2 * seconds) break;
        const auto begin = Clock::now();
        (void)search(question % n);
        times[thread].push_back(std::chrono::duration<float, std::milli>(Clock::now() - begin).count());
      }
    } catch (const Error&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  for (size_t t = 1; t < threads; ++t) others.emplace_back(ask, t);
  ask(0);
  for (std::thread& other : others) other.join();
  const double took = std::chrono::duration<double>(Clock::now() - start).count();
  if (failed) fail(ErrorCode::kIo, "[bench ann] a search failed while it was timed");
  std::vector<float> all;
  for (const auto& part : times) all.insert(all.end(), part.begin(), part.end());
  std::sort(all.begin(), all.end());
  const auto at = [&](double part) {
    return static_cast<double>(all[static_cast<size_t>(part * static_cast<double>(all.size() - 1))]);
  };
  double sum = 0;
  for (float t : all) sum += t;
  point.queries_per_second = static_cast<double>(all.size()) / took;
  point.mean_ms = sum / static_cast<double>(all.size());
  point.p50_ms = at(0.5);
  point.p95_ms = at(0.95);
  point.p99_ms = at(0.99);
  return point;
}

Json to_json(const AnnCurve& curve) {
  Json points = Json::array();
  for (const AnnPoint& p : curve.points) {
    const double n = static_cast<double>(std::max<uint64_t>(1, p.n_queries));
    points.push_back({{"setting", p.setting},
                      {"recall", p.recall},
                      {"queries_per_second", p.queries_per_second},
                      {"mean_ms", p.mean_ms},
                      {"p50_ms", p.p50_ms},
                      {"p95_ms", p.p95_ms},
                      {"p99_ms", p.p99_ms},
                      {"vectors_compared", static_cast<double>(p.cost.vectors_compared) / n},
                      {"heads_visited", static_cast<double>(p.cost.heads_visited) / n},
                      {"lists_read", static_cast<double>(p.cost.lists_read) / n},
                      {"bytes_read", static_cast<double>(p.cost.bytes_read) / n}});
  }
  return {{"method", curve.method},
          {"ram_bytes", curve.ram_bytes},
          {"resident_bytes", curve.resident_bytes},
          {"disk_bytes", curve.disk_bytes},
          {"build_seconds", curve.build_seconds},
          {"points", std::move(points)}};
}

AnnCurve ann_curve_from_json(const Json& json) {
  AnnCurve curve;
  try {
    curve.method = json.at("method").get<std::string>();
    curve.ram_bytes = json.at("ram_bytes").get<uint64_t>();
    curve.resident_bytes = json.at("resident_bytes").get<uint64_t>();
    curve.disk_bytes = json.at("disk_bytes").get<uint64_t>();
    curve.build_seconds = json.at("build_seconds").get<double>();
    for (const Json& p : json.at("points")) {
      AnnPoint point;
      point.setting = p.at("setting").get<std::string>();
      point.recall = p.at("recall").get<double>();
      point.queries_per_second = p.at("queries_per_second").get<double>();
      point.mean_ms = p.at("mean_ms").get<double>();
      point.p50_ms = p.at("p50_ms").get<double>();
      point.p95_ms = p.at("p95_ms").get<double>();
      point.p99_ms = p.at("p99_ms").get<double>();
      curve.points.push_back(point);
    }
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptData, "[read curve] expected what `mneme bench ann --json` prints, found: {}",
         brief_text(e.what(), 120));
  }
  return curve;
}

LineChart ann_chart(std::string_view title, const std::vector<AnnCurve>& curves) {
  LineChart chart{std::string(title), "recall@k", "queries a second", true, false, {}};
  for (const AnnCurve& curve : curves) {
    ChartSeries series{curve.method, {}, {}};
    std::vector<AnnPoint> points = curve.points;
    std::sort(points.begin(), points.end(), [](const AnnPoint& a, const AnnPoint& b) { return a.recall < b.recall; });
    for (const AnnPoint& p : points) {
      series.x.push_back(p.recall);
      series.y.push_back(p.queries_per_second);
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

double queries_per_second_at(const AnnCurve& curve, double recall) {
  // The best of all points and pairs around the recall; queries a second fall about exponentially with recall.
  double best = 0;
  for (const AnnPoint& high : curve.points) {
    if (high.recall < recall) continue;
    best = std::max(best, high.queries_per_second);
    for (const AnnPoint& low : curve.points) {
      if (low.recall >= recall) continue;
      const double part = (recall - low.recall) / (high.recall - low.recall);
      const double between =
          std::exp((1 - part) * std::log(low.queries_per_second) + part * std::log(high.queries_per_second));
      // Only neighbours say what lies between them.
      const bool neighbours = std::none_of(curve.points.begin(), curve.points.end(), [&](const AnnPoint& p) {
        return p.recall > low.recall && p.recall < high.recall;
      });
      if (neighbours) best = std::max(best, between);
    }
  }
  return best;
}

}  // namespace mneme::ann
