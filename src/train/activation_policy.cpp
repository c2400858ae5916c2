#include "train/activation_policy.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>

#include "base/byte_size.h"
#include "base/error.h"
#include "train/tape/schedule.h"

namespace mneme::train {
namespace {

enum class ValueClass : uint8_t { kAnchor, kCheap, kRest };

ValueClass class_of(const ValueInfo& value) {
  const auto is = [&](std::string_view name) { return value.name.ends_with(name); };
  if (is(".output") || is(".attended") || is(".lse") || is("embedded") || is("final")) return ValueClass::kAnchor;
  // What a router decided is never decided twice: a last digit could send a token elsewhere.
  if (is("_exps.weights") || is("_exps.probabilities") || is("_exps.route")) return ValueClass::kAnchor;
  const bool cheap = is(".attn_norm") || is(".ffn_norm") || is(".product") || is("_exps.gathered");
  return cheap ? ValueClass::kCheap : ValueClass::kRest;
}

/// Whether a value is used by the last block or after it, whose backward comes right after forward.
bool is_used_last(const Program<float>& program, const ValueInfo& value) {
  const uint32_t last_block = program.n_layers() - 2;
  const bool block_result = value.name.ends_with(".output") || value.name.ends_with("embedded");
  return value.layer + (block_result ? 1 : 0) >= last_block;
}

/// A micro-batch that is one sequence, for counting operations.
struct OneSequence {
  explicit OneSequence(size_t n) : tokens(n, 0), weights(n, 1.0f), starts{0, static_cast<uint32_t>(n)} {}
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

double forward_flops(const Program<float>& program, const Batch& batch) {
  return std::accumulate(program.ops().begin(), program.ops().end(), 0.0,
                         [&](double sum, const auto& op) { return sum + op->forward_flops(batch); });
}

/// Speeds of transfers of some megabytes, as blocks of a model have.
void measure_disk(Ledger& ledger, const std::string& folder, TrainingSpeed& speed) {
  constexpr size_t kMostPiece = size_t{2} << 20, kPieces = 16;
  const size_t room = std::min<uint64_t>(kMostPiece, ledger.available(Tier::kRam));
  const size_t piece = std::max(kTransferAlign, room / kTransferAlign * kTransferAlign);
  ScratchFile file(ledger, folder, piece * kPieces, kPieces);
  Buffer memory(ledger, Tag::kScratch, piece, "a measurement of the disk");
  const auto all = [&](bool write) {
    uint64_t ticket = 0;
    for (size_t i = 0; i < kPieces; ++i) {
      ticket = write ? file.write(memory.data(), piece, i * piece) : file.read(memory.data(), piece, i * piece);
    }
    file.wait(ticket);
  };
  const double bytes = static_cast<double>(piece * kPieces);
  speed.write_per_s = bytes / seconds_of([&] { all(true); });
  speed.read_per_s = bytes / seconds_of([&] { all(false); });
}

std::vector<SavingChoice> candidates(double share) {
  using enum Saving;
  return {{kKeep, kKeep, kKeep, 1},
          {kKeep, kRecompute, kKeep, 1},
          {kKeep, kRecompute, kRecompute, 1},
          {kKeep, kOffload, kOffload, 1},
          {kOffload, kOffload, kOffload, 1},
          {kOffload, kOffload, kOffload, share},
          {kOffload, kRecompute, kRecompute, 1}};
}

}  // namespace

bool SavingChoice::offloads() const {
  return anchors == Saving::kOffload || cheap == Saving::kOffload || rest == Saving::kOffload;
}

std::string SavingChoice::description() const {
  const bool moves_rest = rest == Saving::kOffload;
  const std::string share = moves_rest && offloaded_share < 1
                                ? fmt::format("{:.0f} % of the rest", 100 * offloaded_share)
                                : std::string("the rest");
  if (anchors == Saving::kOffload) return moves_rest ? "anchors and " + share + " to disk" : "anchors to disk";
  if (moves_rest) return "anchors kept, " + share + " to disk";
  if (rest == Saving::kRecompute) return "anchors only";
  return cheap == Saving::kRecompute ? "drop cheap" : "keep all";
}

void apply_saving(LlamaModel<float>& model, const SavingChoice& choice) {
  for (ValueInfo& value : model.program().values()) {
    const ValueClass kind = class_of(value);
    value.saving = kind == ValueClass::kAnchor  ? choice.anchors
                   : kind == ValueClass::kCheap ? choice.cheap
                                                : choice.rest;
    value.offloaded_share = kind == ValueClass::kAnchor ? 1 : choice.offloaded_share;
    if (choice.offloads() && is_used_last(model.program(), value)) value.saving = Saving::kKeep;
  }
}

SavingCost cost_of(LlamaModel<float>& model, const SavingChoice& choice, size_t n_tokens, GradientLife life) {
  apply_saving(model, choice);
  const auto parameters = model.parameter_list();
  const Schedule schedule = compile(model.program(), parameters, n_tokens, true);
  const OneSequence sequence(n_tokens);
  SavingCost cost{schedule.storage.peak, gradient_bytes(parameters, schedule, life), schedule.file_bytes,
                  forward_flops(model.program(), sequence.view()), 0};
  for (const Instruction& instruction : schedule.instructions) {
    if (instruction.kind != Instruction::Kind::kRecompute) continue;
    cost.recompute_flops += model.program().ops()[instruction.op]->forward_flops(sequence.view()) *
                            static_cast<double>(n_tokens - instruction.first_row) / static_cast<double>(n_tokens);
  }
  return cost;
}

double TrainingSpeed::extra_seconds(const SavingCost& cost) const {
  const double forward = cost.forward_flops / flops_per_s, again = cost.recompute_flops / flops_per_s;
  const double write = static_cast<double>(cost.file_bytes) / write_per_s;
  const double read = static_cast<double>(cost.file_bytes) / read_per_s;
  return again + std::max(0.0, write - forward) + std::max(0.0, read - 2 * forward - again);
}

TrainingSpeed measure_speed(Ledger& ledger, LlamaModel<float>& model, size_t most_tokens, const std::string& folder) {
  TrainingSpeed speed;
  measure_disk(ledger, folder, speed);
  constexpr size_t kTokens = 256;
  const OneSequence sequence(std::min({kTokens, most_tokens, model.sizes().context}));
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  executor.evaluate(sequence.view());
  const double seconds = seconds_of([&] { executor.evaluate(sequence.view()); });
  speed.flops_per_s = forward_flops(model.program(), sequence.view()) / std::max(seconds, 1e-9);
  return speed;
}

double balanced_share(LlamaModel<float>& model, size_t n_tokens, const TrainingSpeed& speed) {
  const OneSequence sequence(n_tokens);
  const Program<float>& program = model.program();
  constexpr uint32_t kBlock = 1;  // all blocks are alike
  double flops = 0, anchors = 0, rest = 0;
  for (const auto& op : program.ops()) {
    if (op->layer != kBlock) continue;
    flops += op->forward_flops(sequence.view());
  }
  apply_saving(model, {Saving::kOffload, Saving::kOffload, Saving::kOffload, 1});
  const Schedule schedule = compile(program, model.parameter_list(), n_tokens, true);
  for (const Transfer& transfer : schedule.transfers) {
    const ValueInfo& value = program.values()[schedule.buffers[transfer.buffer].value];
    if (!transfer.write || value.layer != kBlock) continue;
    (class_of(value) == ValueClass::kAnchor ? anchors : rest) += static_cast<double>(transfer.bytes);
  }
  if (rest == 0) return 1;
  return std::clamp((speed.write_per_s * flops / speed.flops_per_s - anchors) / rest, 0.0, 1.0);
}

SavingChoice fit_saving(Ledger& ledger, LlamaModel<float>& model, size_t n_tokens, GradientLife life,
                        const std::string& folder) {
  const SavingChoice usual{Saving::kKeep, Saving::kRecompute, Saving::kKeep, 1};
  if (ledger.limit(Tier::kRam) == Ledger::kUnlimited) {
    apply_saving(model, usual);
    return usual;
  }
  const size_t room = ledger.available(Tier::kRam);
  const size_t forward = compile(model.program(), model.parameter_list(), n_tokens, false).storage.peak;
  const auto need_of = [&](const SavingCost& cost) {
    return Buffer::reserved_bytes(std::max(cost.arena_bytes, forward)) + Buffer::reserved_bytes(cost.gradient_bytes);
  };
  const SavingChoice keep_all;
  size_t least = need_of(cost_of(model, keep_all, n_tokens, life));
  if (least <= room) return keep_all;

  for (const SavingChoice& choice : candidates(1)) {
    least = std::min(least, need_of(cost_of(model, choice, n_tokens, life)));
  }
  if (least > room) {
    throw Error(
        ErrorCode::kOutOfBudget,
        fmt::format(
            "[train] expected at least {} for gradients and activations of {} tokens, found {} left of the limit {}",
            format_byte_size(least), n_tokens, format_byte_size(room), format_byte_size(ledger.limit(Tier::kRam))),
        "lower micro_batch_tokens or raise --memory");
  }
  const TrainingSpeed speed = measure_speed(ledger, model, n_tokens, folder);
  SavingChoice best;
  double best_seconds = std::numeric_limits<double>::infinity();
  for (const SavingChoice& choice : candidates(balanced_share(model, n_tokens, speed))) {
    const SavingCost cost = cost_of(model, choice, n_tokens, life);
    const double seconds = speed.extra_seconds(cost);
    if (need_of(cost) > room || seconds >= best_seconds) continue;
    best = choice;
    best_seconds = seconds;
  }
  apply_saving(model, best);
  return best;
}

}  // namespace mneme::train
