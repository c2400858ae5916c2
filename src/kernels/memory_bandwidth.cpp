#include "kernels/memory_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/parallel.h"
#include "budget/buffer.h"

namespace mneme::kernels {
namespace {

/// XOR of the words of a range. Few enough chains for the registers of any processor; memory is slower than they are.
uint64_t read_through(const std::byte* data, size_t bytes) {
  constexpr size_t kLanes = 8;
  uint64_t lanes[kLanes] = {};
  for (size_t at = 0; at + sizeof lanes <= bytes; at += sizeof lanes) {
    uint64_t words[kLanes];
    std::memcpy(words, data + at, sizeof words);
    for (size_t i = 0; i < kLanes; ++i) lanes[i] ^= words[i];
  }
  uint64_t all = 0;
  for (uint64_t lane : lanes) all ^= lane;
  return all;
}

}  // namespace

Bandwidth measure_read_bandwidth(size_t bytes, int repetitions) {
  Ledger ledger;
  Buffer memory(ledger, Tag::kScratch, std::max<size_t>(bytes, 1 << 20), "bandwidth measurement");
  parallel_for(memory.size(), 1 << 20,
               [&](size_t begin, size_t end) { std::memset(memory.data() + begin, 1, end - begin); });
  std::atomic<uint64_t> sink{0};
  std::vector<double> rates;
  for (int i = 0; i <= repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(memory.size(), 1 << 20, [&](size_t begin, size_t end) {
      sink.fetch_xor(read_through(memory.data() + begin, end - begin), std::memory_order_relaxed);
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i > 0) rates.push_back(static_cast<double>(memory.size()) / seconds);
  }
  std::sort(rates.begin(), rates.end());
  const size_t n = rates.size();
  return {n % 2 == 1 ? rates[n / 2] : (rates[n / 2 - 1] + rates[n / 2]) / 2, rates.front(), rates.back()};
}

}  // namespace mneme::kernels
