#include "eval/kv_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "base/byte_size.h"
#include "base/checked_math.h"
#include "base/error.h"
#include "base/philox.h"
#include "budget/mapped_range.h"
#include "context/block_table_kv.h"
#include "context/dense_kv.h"

namespace mneme {
namespace {

/// Random rows that are used again for every call: values do not change what attention costs.
struct Rows {
  std::vector<float> q, k, v, out;
  size_t queries, keys, values, outputs;

  Rows(const StorageOptions& o, size_t n)
      : queries(size_t{o.n_heads} * o.shape.key_dim),
        keys(size_t{o.shape.n_kv_heads} * o.shape.key_dim),
        values(size_t{o.shape.n_kv_heads} * o.shape.value_dim),
        outputs(size_t{o.n_heads} * o.shape.value_dim) {
    PhiloxStream random(9);
    q.resize(n * queries);
    k.resize(n * keys);
    v.resize(n * values);
    out.resize(n * outputs);
    for (auto* x : {&q, &k, &v}) {
      for (float& value : *x) value = random.next_normal();
    }
  }
  /// Appends n tokens and attends; milliseconds.
  double feed(KvLayer& store, const StorageOptions& o, size_t n) {
    const auto start = std::chrono::steady_clock::now();
    store.reserve(n);
    store.extend({k.data(), v.data(), keys, values, n, nullptr, 0},
                 {q.data(), queries, o.n_heads, 1 / std::sqrt(static_cast<float>(o.shape.key_dim))}, out.data(),
                 outputs);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }
};

/// Fills a store in chunks, without attention since nobody looks at what comes out.
void fill(KvLayer& store, Rows& rows, const StorageOptions& options, uint64_t tokens) {
  StorageOptions cheap = options;
  cheap.n_heads = 0;
  for (uint64_t done = 0; done < tokens;) {
    const size_t n = std::min<uint64_t>(options.chunk, tokens - done);
    rows.feed(store, cheap, n);
    done += n;
  }
}

}  // namespace

std::vector<AttentionTime> attention_times(const StorageOptions& options) {
  if (options.shape.n_kv_heads == 0 || options.n_heads % options.shape.n_kv_heads != 0) {
    fail(ErrorCode::kInvalidArgument, "[bench attention] expected heads to be a multiple of the {} kv heads, found {}",
         options.shape.n_kv_heads, options.n_heads);
  }
  std::vector<AttentionTime> out;
  Rows rows(options, options.chunk);
  for (const uint64_t tokens : options.tokens) {
    const uint64_t most = tokens + options.chunk;
    Ledger ledger;
    std::vector<std::unique_ptr<KvLayer>> stores;
    stores.push_back(std::make_unique<DenseKv>(options.shape, DType::kF16, most, options.chunk, ledger));
    for (const uint32_t block : options.blocks) {
      const auto arena = std::make_shared<BlockArena>(options.shape, DType::kF16, block, most, ledger);
      stores.push_back(std::make_unique<BlockTableKv>(arena, most));
    }
    for (const auto& store : stores) fill(*store, rows, options, tokens);
    for (const size_t n : {size_t{1}, size_t{options.chunk}}) {
      std::vector<std::vector<double>> ms(stores.size());
      for (uint32_t i = 0; i <= options.repetitions; ++i) {
        for (size_t at = 0; at < stores.size(); ++at) {
          const size_t s = (at + i) % stores.size();  // nobody is always first
          const double time = rows.feed(*stores[s], options, n);
          stores[s]->truncate(static_cast<int64_t>(tokens));
          if (i > 0) ms[s].push_back(time);
        }
      }
      AttentionTime result{tokens, n == 1 ? "decode" : "prefill", summarise(ms[0]), {}, {}};
      for (size_t s = 1; s < stores.size(); ++s) {
        std::vector<double> ratio;
        for (size_t i = 0; i < ms[s].size(); ++i) ratio.push_back(ms[s][i] / ms[0][i]);
        result.table_ms.push_back(summarise(ms[s]));
        result.ratio.push_back(summarise(ratio).median);
      }
      out.push_back(std::move(result));
    }
  }
  return out;
}

std::vector<uint64_t> request_mix(size_t n, uint64_t longest, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<uint64_t> out;
  for (size_t i = 0; i < n; ++i) {
    const double length = 400 * std::exp(static_cast<double>(random.next_normal()));
    out.push_back(std::clamp<uint64_t>(static_cast<uint64_t>(length), 16, longest));
  }
  return out;
}

std::vector<StorageWaste> storage_waste(const WasteOptions& options) {
  const std::vector<uint64_t> mix = request_mix(options.n_requests, options.longest, 4);
  const uint64_t n_tensors = 2 * uint64_t{options.n_layers};
  std::vector<StorageWaste> out;
  /// `committed(tokens)`: bytes of one tensor; `unit`: what they come in.
  const auto add = [&](std::string name, uint64_t unit, const auto& committed) {
    StorageWaste waste{std::move(name)};
    double used = 0, all = 0;
    for (const uint64_t tokens : mix) {
      const double need = static_cast<double>(tokens * options.token_bytes),
                   has = static_cast<double>(committed(tokens));
      used += need;
      all += has;
      waste.most_units = std::max(waste.most_units, (has - need) / static_cast<double>(unit));
      waste.mean_units += (has - need) / static_cast<double>(unit * mix.size());
    }
    waste.wasted = 1 - used / all;
    uint64_t sum = 0;
    for (const uint64_t tokens : mix) {
      sum += n_tensors * committed(tokens);
      if (sum > options.budget) break;
      ++waste.concurrent;
    }
    out.push_back(std::move(waste));
  };
  const auto rounded = [&](uint64_t unit) {
    return [&, unit](uint64_t tokens) { return round_up(tokens * options.token_bytes, unit); };
  };
  add("static", options.longest * options.token_bytes, [&](uint64_t) { return options.longest * options.token_bytes; });
  for (const uint32_t block : options.blocks) {
    add(fmt::format("table of {}", block), block * options.token_bytes, rounded(block * options.token_bytes));
  }
  for (const uint64_t page : options.pages) {
    Ledger ledger;
    add(fmt::format("pages of {}", format_byte_size(page)), page, [&](uint64_t tokens) {
      MappedRange range(ledger, Tag::kKv, page, options.longest * options.token_bytes, "keys");
      range.grow_to(tokens * options.token_bytes);
      return ledger.used(Tier::kRam);
    });
    // The number that fits is counted with ranges of all tensors, which grow until the ledger refuses.
    Ledger tight(options.budget);
    std::vector<MappedRange> ranges;
    uint64_t n = 0;
    try {
      for (const uint64_t tokens : mix) {
        for (uint64_t i = 0; i < n_tensors; ++i) {
          ranges.emplace_back(tight, Tag::kKv, page, options.longest * options.token_bytes, "keys");
          ranges.back().grow_to(tokens * options.token_bytes);
        }
        ++n;
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kOutOfBudget) throw;
    }
    out.back().concurrent = n;
  }
  return out;
}

}  // namespace mneme
