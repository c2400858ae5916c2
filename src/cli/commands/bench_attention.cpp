#include <fmt/format.h>

#include <memory>

#include "base/byte_size.h"
#include "base/json.h"
#include "base/parallel.h"
#include "cli/commands.h"
#include "eval/kv_storage.h"
#include "kernels/cpu.h"

namespace mneme::cli {
namespace {

void print_times(const StorageOptions& options, const std::vector<AttentionTime>& times) {
  fmt::print("{:<8} {:>8} {:>14}", "phase", "tokens", "contiguous ms");
  for (const uint32_t block : options.blocks)
    fmt::print(" {:>14} {:>6}", fmt::format("table of {} ms", block), "ratio");
  fmt::print("\n");
  for (const AttentionTime& time : times) {
    fmt::print("{:<8} {:>8} {:>14.3f}", time.phase, time.tokens, time.contiguous_ms.median);
    for (size_t i = 0; i < time.ratio.size(); ++i)
      fmt::print(" {:>14.3f} {:>6.2f}", time.table_ms[i].median, time.ratio[i]);
    fmt::print("\n");
  }
}

void print_waste(const WasteOptions& options, const std::vector<StorageWaste>& all) {
  fmt::print("\n{} requests of a long-tailed mix, at most {} tokens, {} layers, {} a token in each of K and V\n",
             options.n_requests, options.longest, options.n_layers, format_byte_size(options.token_bytes));
  fmt::print("{:<20} {:>8} {:>22} {:>16}\n", "storage", "wasted", "units a tensor (most)",
             fmt::format("fit {}", format_byte_size(options.budget)));
  for (const StorageWaste& w : all) {
    fmt::print("{:<20} {:>6.1f} % {:>22} {:>16}\n", w.storage, 100 * w.wasted,
               fmt::format("{:.2f} ({:.2f})", w.mean_units, w.most_units), w.concurrent);
  }
}

void run_attention(const StorageOptions& options, const GlobalOptions& global) {
  const std::vector<AttentionTime> times = attention_times(options);
  WasteOptions waste;
  waste.blocks = options.blocks;
  const std::vector<StorageWaste> wasted = storage_waste(waste);
  if (!global.json) {
    print_times(options, times);
    print_waste(waste, wasted);
    return;
  }
  Json out = {{"bench", "attention"},
              {"threads", n_threads()},
              {"target", kernels::target_name(kernels::active_target())},
              {"heads", options.n_heads},
              {"kv_heads", options.shape.n_kv_heads},
              {"dim", options.shape.key_dim},
              {"chunk", options.chunk},
              {"times", Json::array()},
              {"waste", Json::array()}};
  for (const AttentionTime& time : times) {
    Json row = {{"phase", time.phase},
                {"tokens", time.tokens},
                {"contiguous_ms", to_json(time.contiguous_ms)},
                {"tables", Json::array()}};
    for (size_t i = 0; i < time.ratio.size(); ++i) {
      row["tables"].push_back(
          {{"block", options.blocks[i]}, {"ms", to_json(time.table_ms[i])}, {"ratio", time.ratio[i]}});
    }
    out["times"].push_back(std::move(row));
  }
  for (const StorageWaste& w : wasted) {
    out["waste"].push_back({{"storage", w.storage},
                            {"wasted", w.wasted},
                            {"mean_units", w.mean_units},
                            {"most_units", w.most_units},
                            {"concurrent", w.concurrent}});
  }
  fmt::print("{}\n", out.dump(2));
}

}  // namespace

void add_bench_attention(CLI::App& bench, GlobalOptions& global) {
  auto options = std::make_shared<StorageOptions>();
  CLI::App* command = bench.add_subcommand(
      "attention", "Attention over contiguous keys and values, and through block tables; what each storage wastes");
  command->add_option("--tokens", options->tokens, "Tokens in the context, one measurement each")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 22));
  command->add_option("--block", options->blocks, "Tokens of a table's block: 16, 32, 64, 128, 256")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--heads", options->n_heads, "Query heads")->capture_default_str()->check(CLI::Range(1, 1024));
  command->add_option("--kv-heads", options->shape.n_kv_heads, "Heads of keys and values")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  auto dim = std::make_shared<uint32_t>(options->shape.key_dim);
  command->add_option("--dim", *dim, "Values of a head")->capture_default_str()->check(CLI::Range(1, 576));
  command->add_option("--chunk", options->chunk, "Tokens of a prompt in one call")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command->add_option("-r,--repetitions", options->repetitions, "Repetitions after the warm-up")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->footer("Example: mneme bench attention --tokens 8192,32768 --block 16,64");
  command->callback([options, dim, &global] {
    options->shape.key_dim = options->shape.value_dim = *dim;
    run_attention(*options, global);
  });
}

}  // namespace mneme::cli
