#include "train/distillation.h"

#include "base/error.h"
#include "train/sampler.h"

namespace mneme::train {
namespace {

LlamaOptions frozen(const ModelFile& file) {
  LlamaOptions options;
  options.base = &file;
  return options;
}

}  // namespace

Distillation::Distillation(Ledger& ledger, const TeacherOptions& options, LlamaModel<float>& model)
    : file_(open_gguf(options.file)),
      model_(ledger, llama_sizes_of(file_), frozen(file_)),
      executor_(ledger, model_.program(), model_.parameter_list()) {
  if (model_.sizes().vocabulary != model.sizes().vocabulary || model_.sizes().context < model.sizes().context) {
    fail(ErrorCode::kInvalidArgument,
         "[distillation] {}: expected a vocabulary of {} and a context of at least {}, found {} and {}", options.file,
         model.sizes().vocabulary, model.sizes().context, model_.sizes().vocabulary, model_.sizes().context);
  }
  const char* head = model_.sizes().tied_head ? "token_embd.weight" : "output.weight";
  teacher_ = {nullptr, model_.parameters().find(head), options.kl_weight, options.ce_weight};
  model.loss().learn_from(&teacher_);
}

void Distillation::see(const Batch& batch) {
  // The head is multiplied where the losses are; here no position is listed.
  no_weights_.assign(batch.n_tokens(), 0.0f);
  Batch unlisted = batch;
  unlisted.weights = no_weights_;
  executor_.evaluate(unlisted);
  teacher_.hidden = executor_.last_value(model_.final_hidden());
}

}  // namespace mneme::train
