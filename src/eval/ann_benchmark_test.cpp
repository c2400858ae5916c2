#include "eval/ann_benchmark.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/test_error.h"
#include "recall/index/exact_index.h"

namespace mneme::ann {
namespace {

TEST(AnnBenchmark, TheExactIndexFindsAllOfTheTruth) {
  for (const char* shape : {"skewed", "isotropic", "cosine"}) {
    AnnDataset data = make_ann_dataset(shape, 500, 20, 10, 1);
    find_ann_truth(data);
    Ledger ledger;
    ExactIndex index(ledger, data.dimension, data.metric);
    std::vector<uint64_t> ids(data.n_base());
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = i;
    index.add(ids, data.base);
    const AnnPoint point = measure_ann(data, 2, 0.001, [&](size_t i) {
      return index.search(std::span(data.queries).subspan(i * data.dimension, data.dimension), {});
    });
    EXPECT_EQ(point.recall, 1.0) << shape;
    EXPECT_EQ(point.cost.vectors_compared, 20u * 500u);
    EXPECT_GT(point.queries_per_second, 0);
  }
  EXPECT_NE(error_of([] { (void)make_ann_dataset("round", 1, 1, 1, 1); }).find("found 'round'"), std::string::npos);
}

TEST(AnnBenchmark, SpeedAtARecallLiesBetweenNeighbours) {
  AnnCurve curve;
  curve.method = "m";
  for (const auto& [recall, speed] : {std::pair{0.8, 1000.0}, {0.95, 10.0}, {1.0, 1.0}}) {
    AnnPoint point;
    point.recall = recall;
    point.queries_per_second = speed;
    curve.points.push_back(point);
  }
  EXPECT_NEAR(queries_per_second_at(curve, 0.875), 100, 1e-6);
  EXPECT_EQ(queries_per_second_at(curve, 0.5), 1000);
  EXPECT_EQ(queries_per_second_at(ann_curve_from_json(to_json(curve)), 1.01), 0);
}

TEST(AnnBenchmark, FvecsAreReadAndDamagedOnesRefused) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("mneme_fvecs_" + std::to_string(::getpid()))).string();
  const auto write = [&](std::initializer_list<uint32_t> words) {
    std::ofstream out(path, std::ios::binary);
    for (uint32_t word : words) out.write(reinterpret_cast<const char*>(&word), 4);
  };
  size_t dimension = 0;
  const uint32_t one = 0x3f800000u;
  write({2, one, 0, 2, 0, one});
  EXPECT_EQ(read_fvecs(path, 10, &dimension), (std::vector<float>{1, 0, 0, 1}));
  EXPECT_EQ(dimension, 2u);
  EXPECT_EQ(read_fvecs(path, 1, &dimension).size(), 2u);
  for (const auto& bad :
       {std::initializer_list<uint32_t>{2, one}, {2, one, 0, 3, one, one, one}, {0}, {0xFFFFFFFFu, one}, {}}) {
    write(bad);
    EXPECT_NE(error_of([&] { (void)read_fvecs(path, 10, &dimension); }).find("[read fvecs]"), std::string::npos);
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace mneme::ann
