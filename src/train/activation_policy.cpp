#include "train/activation_policy.h"

#include <algorithm>
#include <array>

#include "base/byte_size.h"
#include "base/error.h"
#include "train/tape/schedule.h"

namespace mneme::train {

std::string_view preset_name(SavingPreset preset) {
  switch (preset) {
    case SavingPreset::kKeepAll:
      return "keep all";
    case SavingPreset::kDropCheap:
      return "drop cheap";
    case SavingPreset::kAnchors:
      return "anchors only";
  }
  return {};
}

void apply_preset(LlamaModel<float>& model, SavingPreset preset) {
  for (ValueInfo& value : model.program().values()) {
    const auto is = [&](std::string_view name) { return value.name.ends_with(name); };
    const bool anchor = is(".output") || is(".attended") || is(".lse") || is("embedded") || is("final");
    const bool cheap = is(".attn_norm") || is(".ffn_norm") || is(".product");
    const bool drop = preset == SavingPreset::kAnchors ? !anchor : preset == SavingPreset::kDropCheap && cheap;
    value.saving = drop ? Saving::kRecompute : Saving::kKeep;
  }
}

std::string fit_saving(Ledger& ledger, LlamaModel<float>& model, size_t n_tokens, GradientLife life) {
  size_t least = SIZE_MAX;
  const size_t room = ledger.available(Tier::kRam);
  const bool limited = ledger.limit(Tier::kRam) != Ledger::kUnlimited;
  for (const SavingPreset preset : {SavingPreset::kKeepAll, SavingPreset::kDropCheap, SavingPreset::kAnchors}) {
    if (!limited && preset == SavingPreset::kKeepAll) continue;
    apply_preset(model, preset);
    const auto parameters = model.parameter_list();
    const Schedule training = compile(model.program(), parameters, n_tokens, true);
    const size_t peak =
        std::max(training.storage.peak, compile(model.program(), parameters, n_tokens, false).storage.peak) +
        gradient_bytes(parameters, training, life);
    if (peak <= room) return std::string(preset_name(preset));
    least = std::min(least, peak);
  }
  throw Error(
      ErrorCode::kOutOfBudget,
      fmt::format(
          "[train] expected at least {} for gradients and activations of {} tokens, found {} left of the limit {}",
          format_byte_size(least), n_tokens, format_byte_size(room), format_byte_size(ledger.limit(Tier::kRam))),
      "lower micro_batch_tokens or raise --memory");
}

}  // namespace mneme::train
