#include "eval/near_data_claims.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>

#include "context/attend_worker.h"
#include "context/kv_example.h"
#include "context/kv_policy.h"

namespace mneme {
namespace {

constexpr const char* kSource = "arXiv 2409.04992";
/// Small blocks, so that little is left to the tail.
constexpr const char* kBlocks = ",channels=32,residual=16";

std::string sparf(const std::string& density) {
  return "instinfer:density=" + density + kBlocks;
}

void give(const KvExample& example, KvLayer& store, size_t n) {
  for (size_t first = 0; first < n; first += 256) example.feed(store, first, std::min<size_t>(256, n - first));
}

/// generate(), of a store that must not fail.
std::vector<float> answers(const KvExample& example, KvLayer& store, size_t first, size_t n) {
  std::vector<float> out = generate(example, store, first, n);
  if (!store.trouble().empty()) throw Error(ErrorCode::kIo, std::string(store.trouble()));
  return out;
}

/// Error of the attention of the last 40 of n_tokens tokens, against f16.
double error_of_policy(const std::string& policy, size_t n_tokens) {
  constexpr size_t kAsked = 40;
  const KvExample example = outlier_example(n_tokens);
  Ledger ledger;
  const auto store = KvPolicy::parse(policy).make_layer(example.shape, n_tokens, 256, ledger);
  const auto plain = KvPolicy::parse("f16").make_layer(example.shape, n_tokens, 256, ledger);
  give(example, *store, n_tokens - kAsked);
  give(example, *plain, n_tokens - kAsked);
  return relative_difference(answers(example, *store, n_tokens - kAsked, kAsked),
                             answers(example, *plain, n_tokens - kAsked, kAsked));
}

constexpr size_t kLong = 2048;
constexpr const char* kOutliers =
    "40 generated tokens behind 2008 given ones, one head of 128 channels, 6 of them large";

ClaimMeasurement error_ratio(const std::string& worse, const std::string& better) {
  return {error_of_policy(worse, kLong) / error_of_policy(better, kLong), worse + " over " + better + "; " + kOutliers};
}

/// A worker on a thread, at a socket of this process.
class Worker {
 public:
  explicit Worker(const char* name)
      : worker_(fmt::format("/tmp/mneme-claims-{}-{}", ::getpid(), name), ledger_),
        thread_([this] { worker_.run(); }) {}
  ~Worker() {
    worker_.stop();
    thread_.join();
  }
  const std::string& address() const { return worker_.address(); }

 private:
  Ledger ledger_;
  AttendWorker worker_;
  std::thread thread_;
};

constexpr KvShape kShape{8, 128, 128, 0, 8};

/// Bytes on the link for one generated token behind n_tokens - 1 others.
double link_bytes(size_t n_tokens) {
  const Worker worker("link");
  const KvExample example(kShape, 8, n_tokens);
  Ledger ledger;
  const auto store = KvPolicy::parse("instinfer:" + worker.address()).make_layer(kShape, n_tokens, 256, ledger);
  give(example, *store, n_tokens - 1);
  const uint64_t before = store->fetches().link;
  answers(example, *store, n_tokens - 1, 1);
  return static_cast<double>(store->fetches().link - before);
}

ClaimMeasurement internal_reads() {
  const KvExample example = outlier_example(kLong);
  Ledger ledger;
  const auto store = KvPolicy::parse("instinfer:density=1/8").make_layer(example.shape, kLong, 256, ledger);
  give(example, *store, kLong - 1);
  const FetchCounts before = store->fetches();
  answers(example, *store, kLong - 1, 1);
  FetchCounts step = store->fetches();
  step -= before;
  const double sealed = 1792, all = sealed * 3 * 128 * 2;  // (2047 - 64) / 256 blocks; both copies of keys, and values
  return {static_cast<double>(step.bytes) / all,
          fmt::format(
              "density=1/8, 1792 sealed tokens of one head of 128 channels: {} pages of {:.0f}, of their bytes {:.2f} "
              "pass (formula: r S + 2 k D elements = {} bytes, passed {})",
              step.wanted, all / 4096, static_cast<double>(step.passed) / static_cast<double>(step.bytes),
              (16 * 1792 + 2 * 224 * 128) * 2, step.passed)};
}

ClaimMeasurement worker_difference(size_t n_workers) {
  const Worker a("a"), b("b");
  const KvExample example(kShape, 8, 1500);
  Ledger ledger;
  const std::string remote = "instinfer:" + a.address() + (n_workers == 2 ? ",at=" + b.address() : "");
  const auto here = KvPolicy::parse("instinfer").make_layer(kShape, 1500, 256, ledger);
  const auto there = KvPolicy::parse(remote).make_layer(kShape, 1500, 256, ledger);
  give(example, *here, 1480);
  give(example, *there, 1480);
  return {relative_difference(answers(example, *there, 1480, 20), answers(example, *here, 1480, 20)),
          fmt::format(
              "{} worker{} behind Unix sockets against the store in this process; 20 generated tokens, 8 heads of 128",
              n_workers, n_workers == 1 ? "" : "s")};
}

/// Most memory while a prompt is read, over the keys and values of the layer.
ClaimMeasurement prompt_memory() {
  constexpr size_t kTokens = 8192;
  const KvExample example({2, 128, 128, 0, 2}, 2, kTokens);
  Ledger ledger;
  const auto store = KvPolicy::parse("instinfer").make_layer(example.shape, kTokens, 256, ledger);
  give(example, *store, kTokens);
  const double layer = 2.0 * kTokens * 2 * 2 * 128;
  return {static_cast<double>(ledger.peak(Tier::kRam)) / layer, "8192 tokens, 2 heads of 128; tail and working memory"};
}

ClaimMeasurement written() {
  const KvPolicy policy = KvPolicy::parse("instinfer");
  constexpr uint64_t kTokens = 65536 + 64;
  const double layer = 65536.0 * 8 * 2 * 128 * 2;
  return {static_cast<double>(policy.disk_bytes(kShape, kTokens)) / layer, "65536 sealed tokens, 8 heads of 128"};
}

}  // namespace

std::vector<Claim> near_data_claims() {
  return {
      {"instinfer", kSource, "Dense attention over pages of a file is attention in memory", "relative error",
       "the dense mode loses nothing", 1e-3, true,
       [] {
         return ClaimMeasurement{error_of_policy("instinfer:density=1", 1000), "1000 tokens against f16"};
       }},
      {"instinfer", kSource, "SparF that looks at everything is dense attention", "relative error", "compression 1",
       1e-3, true,
       [] {
         return ClaimMeasurement{error_of_policy(sparf("0.99999"), 1000), "density=0.99999: all channels and tokens"};
       }},
      {"instinfer", kSource, "SparF at 1/8 has a fraction of the error of a window of the same size", "times the error",
       "about equal to SparQ; local attention fails", 3, false,
       [] { return error_ratio("window:sink=0,recent=300", sparf("1/8")); }},
      {"instinfer", kSource, "Half the tokens lose less than a quarter of them", "times the error",
       "accuracy falls slowly down to 1/8", 1.2, false, [] { return error_ratio(sparf("1/4"), sparf("1/2")); }},
      {"instinfer", kSource, "A quarter of the tokens loses less than an eighth", "times the error", "the same", 1.5,
       false, [] { return error_ratio(sparf("1/8"), sparf("1/4")); }},
      {"instinfer", kSource, "Bytes on the link do not grow with the length", "times the bytes",
       "data on the link reduced by s / 2", 1, true,
       [] {
         return ClaimMeasurement{link_bytes(2048) / link_bytes(512),
                                 "one generated token behind 2047 and 511, 8 heads of 128"};
       }},
      {"instinfer", kSource, "The link carries a small part of what fetching keys and values would", "times fewer",
       "s / 2 in f16; queries and outputs here are f32, which makes s / 3", 600, false,
       [] {
         return ClaimMeasurement{2047.0 * 2 * 8 * 128 * 2 / link_bytes(2048), "2047 tokens, 8 heads of 128"};
       }},
      {"instinfer", kSource, "Reading in two steps leaves pages out", "of all pages",
       "half of the sparsity remains after the page step", 0.95, true, internal_reads},
      {"instinfer", kSource, "A worker in place of the own file gives the same outputs", "relative error", "one device",
       0, true, [] { return worker_difference(1); }},
      {"instinfer", kSource, "Two workers with half of the heads each give the same outputs", "relative error",
       "several devices, heads divided", 0, true, [] { return worker_difference(2); }},
      {"instinfer", kSource, "A prompt is never in memory", "of the layer's keys and values",
       "at most about two layers", 2.5, true, prompt_memory},
      {"instinfer", kSource, "Keys by tokens and by channels cost half more on the disk", "times keys and values",
       "keys are stored twice", 1.5, true, written},
  };
}

}  // namespace mneme
