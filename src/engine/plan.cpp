#include "engine/plan.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string_view>

#include "base/byte_size.h"
#include "base/error.h"
#include "budget/resident.h"
#include "engine/session/session.h"

namespace mneme {
namespace {

constexpr std::array<uint32_t, 6> kBatches = {512, 256, 128, 64, 32, 16};
/// Growth of the process that no reservation covers: stacks, allocator slack, strings of a request.
constexpr uint64_t kRuntimeSlack = uint64_t{3} << 19;
/// Logits rows of one forward pass: a chunk of a prompt wants one, a decode step one a sequence.
uint32_t outputs_of(const PlanRequest& request) {
  return std::max<uint32_t>(1, request.n_sequences);
}

/// Every matrix is read once a token, but of n experts only those used; token tables only when they are the output too.
uint64_t active_weight_bytes(const Model& model, bool pack) {
  uint64_t always = 0, experts = 0;
  for (const auto& matrix : model.weights.matrices) {
    const uint64_t bytes = matrix->product_bytes(pack);
    if (matrix->name.ends_with(']')) {
      experts += bytes;
    } else if (matrix.get() == model.output.weight ||
               (matrix.get() != model.token_embedding && matrix.get() != model.position_embedding)) {
      always += bytes;
    }
  }
  const Hyperparameters& h = model.hyper;
  return always + (h.n_experts > 0 ? experts * h.n_experts_used / h.n_experts : 0);
}

/// "412 of 672 blocks: 4.31 bits a weight; 1.06 bits in 1.2 MiB to 8.5 bits in 9.6 MiB"
std::string stack_text(const BlockStack& stack, size_t n) {
  const size_t least = stack.least_blocks(), all = stack.n_blocks();
  return fmt::format("{} of {} blocks: {:.2f} bits a weight; {:.2f} bits in {} to {:.2f} bits in {}", n, all,
                     stack.bits_per_weight(n), stack.bits_per_weight(least), format_byte_size(stack.bytes(least)),
                     stack.bits_per_weight(all), format_byte_size(stack.bytes(all)));
}

/// `n_blocks`: of the stack, if there is one.
MemoryPlan fill(const Model& model, const PlanRequest& request, const FixedBytes& fixed, uint64_t context,
                uint32_t batch, size_t n_blocks) {
  MemoryPlan plan;
  plan.limit = request.memory;
  plan.context = context;
  plan.n_sequences = request.n_sequences;
  plan.batch = batch;
  plan.pack = request.pack;
  const StateOptions state{request.kv, context, batch};
  const uint64_t kv = model.state_bytes(state, context);
  size_t widest = 0;
  std::set<DType> types;
  for (const auto& matrix : model.weights.matrices) {
    widest = std::max(widest, matrix->columns());
    types.insert(matrix->stored.dtype);
  }
  if (fixed.adapters > 0) types.insert(DType::kF32);
  const std::vector<DType> dtypes(types.begin(), types.end());
  plan.rows = {
      {Tag::kWeights, fmt::format("{} matrices", model.weights.matrices.size()),
       model.weights.resident_bytes(request.pack)},
      {Tag::kKv, fmt::format("{} x {} tokens, {}", request.n_sequences, context, request.kv.name()),
       kv * request.n_sequences},
      {Tag::kActivation, fmt::format("passes of {} tokens", batch), model.workspace_bytes(batch, outputs_of(request))},
      {Tag::kScratch, "prepared inputs of products", kernels::matmul_scratch_bytes(batch, widest, dtypes)},
      {Tag::kRuntime, "program, libraries, vocabulary", fixed.runtime + kRuntimeSlack},
  };
  if (const BlockStack* stack = model.weights.stack.get()) {
    plan.stack_blocks = n_blocks;
    plan.stack_bytes = stack->bytes(n_blocks);
    plan.rows.insert(plan.rows.begin() + 1, {Tag::kWeights, stack_text(*stack, n_blocks), plan.stack_bytes});
  }
  if (fixed.adapters > 0) {
    plan.rows.insert(
        plan.rows.begin() + 1,
        {Tag::kWeights, fmt::format("{} adapter{}", request.adapters.size(), request.adapters.size() == 1 ? "" : "s"),
         fixed.adapters});
  }
  if (request.guard_tokens > 0) {
    // A policy beside f16, over a window of the text.
    const StateOptions plain{KvPolicy::parse("f16"), request.guard_tokens, batch};
    plan.rows.push_back({Tag::kKv, fmt::format("2 x {} tokens to watch the policy", request.guard_tokens),
                         2 * model.state_bytes(plain, request.guard_tokens)});
  }
  if (const uint64_t working = model.kv_working_bytes(state); working > 0) {
    plan.rows.push_back({Tag::kScratch, "keys and values under way", working * request.n_sequences});
  }
  if (request.grammar) {
    plan.rows.push_back(
        {Tag::kCache, "grammars: vocabulary tree, masks", fixed.grammar + fixed.masks * request.n_sequences});
  }
  plan.weight_bytes_per_token = active_weight_bytes(model, request.pack) + fixed.adapters + plan.stack_bytes;
  plan.kv_bytes_per_token_at_end = kv;
  plan.kv_disk_bytes = model.kv_disk_bytes(state, context) * request.n_sequences;
  if (request.session) plan.session_bytes = Session::most_bytes(kv);
  return plan;
}

/// Largest context up to `most` whose plan fits, in steps of 256 tokens; 0 when even one step does not.
uint64_t largest_context(const Model& model, const PlanRequest& request, const FixedBytes& fixed, uint64_t most,
                         uint32_t batch, size_t n_blocks) {
  constexpr uint64_t kStep = 256;
  const auto fits = [&](uint64_t context) {
    return fill(model, request, fixed, context, batch, n_blocks).total() <= request.memory;
  };
  if (fits(most)) return most;
  uint64_t low = 0, high = most / kStep;  // in steps; `low` fits, `high` may not
  if (!fits(std::min(kStep, most))) return 0;
  low = 1;
  while (low + 1 < high) {
    const uint64_t middle = (low + high) / 2;
    (fits(middle * kStep) ? low : high) = middle;
  }
  return std::min(most, low * kStep);
}

/// A batch below this is not made smaller for a longer context.
constexpr uint32_t kWorthwhileBatch = 128;

/// As many sequences of the context asked for as fit, with the largest batch that is not worth more than they are; 1
/// when not even that many do.
uint32_t most_sequences(const Model& model, PlanRequest request, const FixedBytes& fixed,
                        const std::vector<uint32_t>& batches, size_t n_blocks) {
  const uint64_t context = request.context.value_or(model.hyper.n_context);
  for (uint32_t batch : batches) {
    if (batch > kWorthwhileBatch && batch != batches.back()) continue;
    const auto fits = [&](uint32_t n) {
      request.n_sequences = n;
      return fill(model, request, fixed, context, batch, n_blocks).total() <= request.memory;
    };
    if (!fits(1)) continue;
    uint32_t low = 1, high = kMostSequences + 1;  // `low` fits, `high` may not
    while (low + 1 < high) {
      const uint32_t middle = (low + high) / 2;
      (fits(middle) ? low : high) = middle;
    }
    return low;
  }
  return 1;
}

/// The plan with the context asked for, or without one the longest that fits: a long context is worth more than a large
/// batch, down to 128 tokens a pass. Nothing when no context fits.
std::optional<MemoryPlan> largest_plan(const Model& model, const PlanRequest& request, const FixedBytes& fixed,
                                       const std::vector<uint32_t>& batches, size_t n_blocks) {
  uint64_t best_context = 0;
  uint32_t best_batch = batches.back();
  for (uint32_t batch : batches) {
    const uint64_t wanted = request.context.value_or(model.hyper.n_context);
    const uint64_t context = largest_context(model, request, fixed, wanted, batch, n_blocks);
    if (context == wanted) return fill(model, request, fixed, context, batch, n_blocks);
    const bool worthwhile = best_context == 0 || (batch >= kWorthwhileBatch && context > best_context);
    if (worthwhile && context > 0) {
      best_context = context;
      best_batch = batch;
    }
  }
  if (request.context || best_context == 0) return std::nullopt;
  return fill(model, request, fixed, best_context, best_batch, n_blocks);
}

/// The plan that did not fit, for the message.
MemoryPlan smallest(const Model& model, const PlanRequest& request, const FixedBytes& fixed,
                    const std::vector<uint32_t>& batches, size_t n_blocks) {
  const uint64_t context = request.context.value_or(std::min<uint64_t>(model.hyper.n_context, 256));
  return fill(model, request, fixed, context, batches.back(), n_blocks);
}

[[noreturn]] void refuse(const Model& model, const PlanRequest& request, const FixedBytes& fixed,
                         const MemoryPlan& plan) {
  const uint64_t short_context = std::min<uint64_t>(plan.context, 256);
  const uint32_t short_batch = model.causal ? plan.batch : static_cast<uint32_t>(short_context);
  const uint64_t minimum = fill(model, request, fixed, short_context, short_batch, plan.stack_blocks).total();
  std::string parts;
  for (const MemoryPlan::Row& row : plan.rows) {
    parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", tag_name(row.tag), format_byte_size(row.bytes));
  }
  const uint64_t context = largest_context(model, request, fixed, plan.context, plan.batch, plan.stack_blocks);
  // Rounded up, with a MiB for a next process that is a little larger, and in the form that --memory takes.
  const auto option = [](uint64_t bytes) { return fmt::format("--memory {}M", (bytes >> 20) + 2); };
  const std::string advice =
      context > 0 ? fmt::format("use --context {} or less, or {} or more", context, option(plan.total()))
                  : fmt::format("the least for this model is {} with --context {}", option(minimum), short_context);
  throw Error(ErrorCode::kOutOfBudget,
              fmt::format("[plan] {} tokens of context need {} ({}), but the limit is {}", plan.context,
                          format_byte_size(plan.total()), parts, format_byte_size(request.memory)),
              advice);
}

}  // namespace

uint64_t MemoryPlan::total() const {
  uint64_t sum = 0;
  for (const Row& row : rows) sum += row.bytes;
  return sum;
}

uint64_t MemoryPlan::bytes(Tag tag) const {
  uint64_t sum = 0;
  for (const Row& row : rows) sum += row.tag == tag ? row.bytes : 0;
  return sum;
}

double MemoryPlan::decode_rate(double bytes_per_second) const {
  return bytes_per_second / static_cast<double>(std::max<uint64_t>(1, weight_bytes_per_token));
}

double MemoryPlan::decode_rate_full(double bytes_per_second) const {
  return bytes_per_second /
         static_cast<double>(std::max<uint64_t>(1, weight_bytes_per_token + kv_bytes_per_token_at_end));
}

MemoryPlan make_plan(const Model& model, const PlanRequest& given, const FixedBytes& fixed) {
  PlanRequest request = given;
  const uint64_t trained = model.hyper.n_context;
  if (request.memory == 0) request.memory = machine_memory_bytes();
  if (request.n_sequences > kMostSequences) {
    fail(ErrorCode::kInvalidArgument, "[plan] expected at most {} sequences, found {}", kMostSequences,
         request.n_sequences);
  }
  if (request.batch && *request.batch == 0)
    fail(ErrorCode::kInvalidArgument, "[plan] expected a batch of at least 1 token");
  if (request.context && (*request.context == 0 || *request.context > trained)) {
    fail(ErrorCode::kInvalidArgument, "[plan] expected a context of 1 to {} tokens (the trained length), found {}",
         trained, *request.context);
  }
  std::vector<uint32_t> batches(kBatches.begin(), kBatches.end());
  if (request.batch) batches = {*request.batch};
  if (!model.causal) {  // an encoder takes its whole input in one pass
    batches = {static_cast<uint32_t>(request.context.value_or(std::min<uint64_t>(trained, 2048)))};
    request.context = batches.front();
  }
  const BlockStack* const stack = model.weights.stack.get();
  if (request.n_sequences == 0) {
    request.n_sequences = most_sequences(model, request, fixed, batches, stack != nullptr ? stack->n_blocks() : 0);
  }
  if (stack == nullptr) {
    if (const auto plan = largest_plan(model, request, fixed, batches, 0)) return *plan;
    refuse(model, request, fixed, smallest(model, request, fixed, batches, 0));
  }
  constexpr uint64_t kUsualContext = 2048;
  const uint64_t context = request.context.value_or(std::min(trained, kUsualContext));
  const auto all = largest_plan(model, request, fixed, batches, stack->n_blocks());
  if (all && all->context >= context) return *all;
  // A large batch is faster, but blocks are worth more than passes above 128 tokens.
  const size_t least = stack->least_blocks();
  for (uint32_t batch : batches) {
    if (batch > kWorthwhileBatch && batch != batches.back()) continue;
    const uint64_t others = fill(model, request, fixed, context, batch, 0).total();
    const size_t n_blocks = others < request.memory ? stack->fitting(request.memory - others) : 0;
    if (n_blocks >= least) return fill(model, request, fixed, context, batch, n_blocks);
  }
  if (const auto plan = largest_plan(model, request, fixed, batches, least)) return *plan;
  refuse(model, request, fixed, smallest(model, request, fixed, batches, least));
}

}  // namespace mneme
