// Evidence about training: plans against their bound, counted against resident bytes, sequence length under a memory limit,
// and the speed of a step against that of its products alone. docs/results/training.md has what it printed.
//
//   bench_training plan                     planned arena against the most bytes alive, 8 blocks, all choices
//   bench_training resident                 bytes of the ledger against growth of the process
//   bench_training sequence 512M FOLDER     longest sequence and tokens/s, everything kept against planned; scratch in FOLDER
//   bench_training products                 a step of a model of large products against oneDNN on the same products

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "budget/resident.h"
#include "train/activation_policy.h"
#include "train/ops/gemm.h"
#include "train/optim/optimizer.h"

namespace mneme::train {
namespace {

using enum Saving;

struct NamedChoice {
  const char* name;
  SavingChoice choice;
};

const NamedChoice kChoices[] = {{"keep all", {kKeep, kKeep, kKeep, 1}},
                                {"drop cheap", {kKeep, kRecompute, kKeep, 1}},
                                {"anchors only", {kKeep, kRecompute, kRecompute, 1}},
                                {"anchors kept, rest to disk", {kKeep, kOffload, kOffload, 1}},
                                {"all to disk", {kOffload, kOffload, kOffload, 1}},
                                {"alpha 0.75", {kOffload, kOffload, kOffload, 0.75}},
                                {"alpha 0.5", {kOffload, kOffload, kOffload, 0.5}},
                                {"alpha 0.25", {kOffload, kOffload, kOffload, 0.25}},
                                {"anchors to disk", {kOffload, kRecompute, kRecompute, 1}}};

LlamaSizes eight_blocks(size_t context) {
  LlamaSizes sizes;
  sizes.vocabulary = 4096;
  sizes.width = 256;
  sizes.n_layers = 8;
  sizes.n_heads = 4;
  sizes.n_kv_heads = 2;
  sizes.ffn_width = 704;
  sizes.context = context;
  return sizes;
}

/// Random ids in sequences of one length, every position predicted.
struct Data {
  Data(size_t n, size_t sequence, size_t vocabulary) : tokens(n), weights(n, 1.0f) {
    PhiloxStream random(1);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.next_below(vocabulary));
    for (size_t start = 0; start <= n; start += sequence) starts.push_back(static_cast<uint32_t>(start));
  }
  Batch view() const { return {tokens, tokens, weights, starts, 1.0 / static_cast<double>(tokens.size())}; }

  std::vector<int32_t> tokens;
  std::vector<float> weights;
  std::vector<uint32_t> starts;
};

template <typename Work>
double seconds_of(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double mib(double bytes) { return bytes / (1 << 20); }

void print_plans() {
  constexpr size_t kTokens = 4096;
  Ledger ledger;
  LlamaModel<float> model(ledger, eight_blocks(kTokens), GemmFormat::kBf16);
  fmt::print("8 blocks, {} tokens\n{:<28} {:>8} {:>12} {:>12} {:>9} {:>10}\n", kTokens, "choice", "buffers", "arena MiB",
             "bound MiB", "over", "disk MiB");
  for (const NamedChoice& named : kChoices) {
    apply_saving(model, named.choice);
    Schedule schedule;
    const double seconds =
        seconds_of([&] { schedule = compile(model.program(), model.parameter_list(), kTokens, true); });
    const StoragePlan& plan = schedule.storage;
    fmt::print("{:<28} {:>8} {:>12.2f} {:>12.2f} {:>8.2f}% {:>10.1f}   planned in {:.2f} s\n", named.name,
               schedule.buffers.size(), mib(static_cast<double>(plan.peak)), mib(static_cast<double>(plan.lower_bound)),
               100.0 * (static_cast<double>(plan.peak) / static_cast<double>(plan.lower_bound) - 1),
               mib(static_cast<double>(schedule.file_bytes)), seconds);
  }
}

/// Loads what products need once, so that it is not counted as memory of the model.
void warm_up() {
  Ledger ledger;
  LlamaModel<float> model(ledger, eight_blocks(64), GemmFormat::kBf16);
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  const Data data(64, 64, 4096);
  executor.train(data.view());
}

void print_resident() {
  constexpr size_t kTokens = 4096;
  warm_up();
  const uint64_t before = resident_bytes();
  Ledger ledger;
  LlamaModel<float> model(ledger, eight_blocks(kTokens), GemmFormat::kBf16);
  model.initialise(1);
  const auto optimizer = make_optimizer(ledger, model.parameter_list(), {});
  apply_saving(model, {});
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  const Data data(kTokens, kTokens, 4096);
  executor.prepare(kTokens, true);
  for (int step = 0; step < 2; ++step) {
    model.parameters().start_step();
    executor.train(data.view());
    const StepInfo info{static_cast<uint64_t>(step + 1), 1e-3f, 1.0f};
    for (size_t i = 0; i < model.parameter_list().size(); ++i) optimizer->update(i, info);
    const auto grown = static_cast<double>(resident_bytes() - before), counted = static_cast<double>(ledger.used(Tier::kRam));
    fmt::print("step {}: counted {:.1f} MiB, process grew by {:.1f} MiB, {:+.2f} %\n", step, mib(counted), mib(grown),
               100 * (grown / counted - 1));
  }
  for (const Tag tag : {Tag::kWeights, Tag::kGradient, Tag::kOptimizer, Tag::kActivation}) {
    fmt::print("  {:<12} {:>8.1f} MiB\n", tag_name(tag), mib(static_cast<double>(ledger.used(Tier::kRam, tag))));
  }
}

/// Bytes of one step beside weights, gradients and optimiser.
size_t arena_of(size_t n_tokens, const SavingChoice& choice) {
  Ledger ledger;
  LlamaModel<float> model(ledger, eight_blocks(n_tokens), GemmFormat::kBf16);
  return Buffer::reserved_bytes(
      std::max(cost_of(model, choice, n_tokens).arena_bytes,
               compile(model.program(), model.parameter_list(), n_tokens, false).storage.peak));
}

/// The longest sequence, in steps of 256 tokens, whose arena fits.
size_t longest(size_t room, const SavingChoice& choice) {
  size_t fits = 0, too_long = 1024;
  for (; arena_of(256 * too_long, choice) <= room; too_long *= 2) fits = too_long;
  while (too_long - fits > 1) {
    const size_t middle = fits + (too_long - fits) / 2;
    (arena_of(256 * middle, choice) <= room ? fits : too_long) = middle;
  }
  return 256 * fits;
}

/// One step of one sequence; the best of three where that is quick.
void print_step(size_t n_tokens, const char* name, const SavingChoice* choice, uint64_t limit, const std::string& folder) {
  Ledger ledger(limit);
  LlamaModel<float> model(ledger, eight_blocks(n_tokens), GemmFormat::kBf16);
  model.initialise(1);
  const auto optimizer = make_optimizer(ledger, model.parameter_list(), {});
  SavingChoice used;
  if (choice != nullptr) {
    used = *choice;
    apply_saving(model, used);
  } else {
    used = fit_saving(ledger, model, n_tokens, GradientLife::kStep, folder);
  }
  Executor<float> executor(ledger, model.program(), model.parameter_list(), GradientLife::kStep, folder);
  executor.prepare(n_tokens, true);
  const Data data(n_tokens, n_tokens, 4096);
  double best = 1e30, all = 0;
  for (int i = 0; i < 3 && all < 8; ++i) {
    model.parameters().start_step();
    const double seconds = seconds_of([&] { executor.train(data.view()); });
    best = std::min(best, seconds);
    all += seconds;
  }
  fmt::print("| {} | {} | {} | {:.0f} | {:.0f} | {:.0f} |\n", n_tokens, name, used.description(),
             static_cast<double>(n_tokens) / best, mib(static_cast<double>(ledger.peak(Tier::kRam))),
             mib(static_cast<double>(ledger.used(Tier::kDisk))));
  std::fflush(stdout);
}

void print_sequences(uint64_t limit, const std::string& folder) {
  size_t room = 0;
  {
    Ledger ledger(limit);
    LlamaModel<float> model(ledger, eight_blocks(256), GemmFormat::kBf16);
    const auto optimizer = make_optimizer(ledger, model.parameter_list(), {});
    const size_t gradients = cost_of(model, {}, 256).gradient_bytes;
    room = ledger.available(Tier::kRam) - Buffer::reserved_bytes(gradients);
  }
  fmt::print("limit {}, {:.0f} MiB of it for activations\n", format_byte_size(limit), mib(static_cast<double>(room)));
  size_t most_kept = 0, most = 0;
  for (const NamedChoice& named : kChoices) {
    const size_t n = longest(room, named.choice);
    fmt::print("longest sequence, {}: {} tokens\n", named.name, n);
    if (most_kept == 0) most_kept = n;
    most = std::max(most, n);
  }
  fmt::print("{:.2f} times as long as with everything kept\n\n", static_cast<double>(most) / static_cast<double>(most_kept));
  fmt::print("| tokens | mode | choice | tokens/s | peak MiB | disk MiB |\n|---|---|---|---|---|---|\n");
  for (const size_t n : {most_kept / 4, most_kept / 2, most_kept}) {
    const size_t whole = n / 256 * 256;
    print_step(whole, "all kept", &kChoices[0].choice, Ledger::kUnlimited, folder);
    for (const NamedChoice& named : kChoices) {
      if (n == most_kept && &named != &kChoices[0]) print_step(whole, "forced", &named.choice, Ledger::kUnlimited, folder);
    }
  }
  for (const size_t n : {most_kept * 3 / 2, most_kept * 2, most_kept * 3, most}) {
    const size_t whole = n / 256 * 256;
    print_step(whole, "planned", nullptr, limit, folder);
    print_step(whole, "all kept, no limit", &kChoices[0].choice, Ledger::kUnlimited, folder);
  }
}

/// The three products of every matrix of the model, over rows of the batch, with operands that are converted already.
double products_alone(LlamaModel<float>& model, size_t n) {
  size_t most = 0;
  for (const auto& p : model.parameters().all()) most = std::max({most, p.rows, p.columns});
  std::vector<uint16_t> a(n * most, 0x3F80), w(most * most, 0x3F80);
  std::vector<float> c(std::max(n, most) * most);
  return seconds_of([&] {
    for (const auto& p : model.parameters().all()) {
      if (!p.is_matrix()) continue;
      const size_t rows = p.rows, columns = p.columns;
      gemm_bf16({n, rows, columns, false, true, columns, columns, rows}, a.data(), w.data(), false, c.data());
      gemm_bf16({n, columns, rows, false, false, rows, columns, columns}, a.data(), w.data(), false, c.data());
      gemm_bf16({rows, columns, n, true, false, rows, columns, columns}, a.data(), a.data(), true, c.data());
    }
  });
}

void print_products() {
  constexpr size_t kTokens = 2048;
  for (const size_t width : {256, 512, 1024}) {
    LlamaSizes sizes = eight_blocks(256);
    sizes.vocabulary = 512;
    sizes.width = width;
    sizes.n_heads = width / 64;
    sizes.n_kv_heads = width / 128;
    sizes.ffn_width = width * 11 / 4;
    sizes.n_layers = width == 1024 ? 4 : 8;
    Ledger ledger;
    LlamaModel<float> model(ledger, sizes, GemmFormat::kBf16);
    model.initialise(1);
    apply_saving(model, {});
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    const Data data(kTokens, 256, sizes.vocabulary);
    double flops = 0;
    for (const auto& p : model.parameters().all()) flops += p.is_matrix() ? 6.0 * static_cast<double>(p.size() * kTokens) : 0;
    double step = 1e30, alone = 1e30;
    for (int round = 0; round < 6; ++round) {
      model.parameters().start_step();
      step = std::min(step, seconds_of([&] { executor.train(data.view()); }));
      alone = std::min(alone, products_alone(model, kTokens));
    }
    fmt::print("width {:>4}: step {:.3f} s, {:.0f} GFLOP/s of its products; oneDNN alone {:.3f} s, {:.0f} GFLOP/s; {:.0f} %\n",
               width, step, flops / step * 1e-9, alone, flops / alone * 1e-9, 100 * alone / step);
    std::fflush(stdout);
  }
}

int run(const std::vector<std::string>& arguments) {
  const std::string what = arguments.empty() ? "" : arguments[0];
  set_n_threads(2);
  if (what == "plan") {
    print_plans();
  } else if (what == "resident") {
    print_resident();
  } else if (what == "sequence" && arguments.size() == 3) {
    print_sequences(parse_byte_size(arguments[1]), arguments[2]);
  } else if (what == "products") {
    print_products();
  } else {
    fmt::print(stderr, "usage: bench_training plan | resident | sequence LIMIT FOLDER | products\n");
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace mneme::train

int main(int argc, char** argv) {
  try {
    return mneme::train::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const mneme::Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
