#include "train/run_model.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"
#include "train/data/sources.h"
#include "train/sampler.h"

namespace mneme::train {
namespace {

/// Writes the fields of a protocol buffer message.
class MessageWriter {
 public:
  void integer(uint64_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
  }
  void number(uint64_t field, float value) {
    varint(field << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int i = 0; i < 4; ++i) bytes_ += static_cast<char>(bits >> (8 * i));
  }
  void text(uint64_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 128; value >>= 7) bytes_ += static_cast<char>(value | 128);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

}  // namespace

std::unique_ptr<ModelFile> open_base(Recipe& recipe) {
  if (recipe.base.empty()) return nullptr;
  auto base = std::make_unique<ModelFile>(open_gguf(recipe_path(recipe.base)));
  LlamaSizes sizes = llama_sizes_of(*base);
  if (recipe.model.context > sizes.context) {
    fail(ErrorCode::kInvalidArgument, "[train] expected a context of at most the {} of {}, found {}", sizes.context,
         base->path(), recipe.model.context);
  }
  if (recipe.model.context > 0) sizes.context = recipe.model.context;
  for (const StageOptions& stage : recipe.stages) {
    if (stage.sequence_tokens > sizes.context) {
      fail(ErrorCode::kInvalidArgument, "[train] expected sequence_tokens of at most the context {} of {}, found {}",
           sizes.context, base->path(), stage.sequence_tokens);
    }
  }
  recipe.model = sizes;
  recipe.vocabulary = sizes.vocabulary;
  return base;
}

namespace {

/// Stored ternary matrices have rows of whole blocks.
void check_ternary_rows(const Recipe& recipe) {
  const size_t block = dtype_info(DType::kTQ2_0).block_elements;
  if (!recipe.experts->ternary && recipe.experts->shared != ExpertOptions::Shared::kTernary) return;
  if (recipe.model.width % block == 0 && recipe.model.ffn_width % block == 0) return;
  fail(ErrorCode::kInvalidArgument,
       "[experts] expected a width and ffn_width of a multiple of {} for ternary experts, found {} and {}", block,
       recipe.model.width, recipe.model.ffn_width);
}

}  // namespace

RunModel build_model(Ledger& ledger, std::unique_ptr<ModelFile> base, const Recipe& recipe) {
  RunModel run;
  run.base = std::move(base);
  LlamaOptions options;
  options.format = recipe.gemm;
  options.rounding = recipe.rounding;
  options.weight_rounding = recipe.weight_rounding;
  options.bf16_weights = recipe.bf16_weights;
  if (recipe.adapter) {
    if (run.base != nullptr) options.format = GemmFormat::kFull;
    options.base = run.base.get();
    options.adapter = &*recipe.adapter;
    for (const std::string& path : recipe.adapter->below) {
      run.below.push_back(std::make_unique<AdapterFile>(recipe_path(path)));
      run.below.back()->check_base(*run.base);
      options.below.push_back(run.below.back().get());
    }
  }
  if (recipe.experts) {
    check_ternary_rows(recipe);
    options.base = run.base.get();
    options.experts = &*recipe.experts;
  }
  run.model = std::make_unique<LlamaModel<float>>(ledger, recipe.model, options);
  if (run.model->trained_list().empty()) {
    fail(ErrorCode::kInvalidArgument, "[adapter] expected targets among the linear layers, found none of them");
  }
  return run;
}

std::string sentencepiece_model_of(const ModelFile& base) {
  const Metadata& metadata = base.metadata();
  const std::string_view kind = metadata.get_string("tokenizer.ggml.model");
  const auto pieces = metadata.find_array_string("tokenizer.ggml.tokens");
  const auto scores = metadata.find_array_f32("tokenizer.ggml.scores");
  const auto types = metadata.find_array_i32("tokenizer.ggml.token_type");
  if (kind != "llama" || !pieces || !scores || !types) {
    fail(ErrorCode::kUnsupported,
         "[train] {}: expected a SentencePiece vocabulary (tokenizer.ggml.model llama), found {}", base.path(), kind);
  }
  if (scores->size() != pieces->size() || types->size() != pieces->size()) {
    fail(ErrorCode::kCorruptData, "[train] {}: expected {} scores and types, found {} and {}", base.path(),
         pieces->size(), scores->size(), types->size());
  }
  const auto bos = metadata.find_u64("tokenizer.ggml.bos_token_id"),
             eos = metadata.find_u64("tokenizer.ggml.eos_token_id");
  if (bos != uint64_t{TrainTokenizer::kBos} || eos != uint64_t{TrainTokenizer::kEos}) {
    fail(ErrorCode::kUnsupported, "[train] {}: expected ids {} and {} for the begin and end of text, found others",
         base.path(), TrainTokenizer::kBos, TrainTokenizer::kEos);
  }
  MessageWriter model;
  for (size_t i = 0; i < pieces->size(); ++i) {
    MessageWriter piece;
    piece.text(1, (*pieces)[i]);
    piece.number(2, (*scores)[i]);
    piece.integer(3, static_cast<uint64_t>(static_cast<uint32_t>((*types)[i])));
    model.text(1, piece.bytes());
  }
  MessageWriter trainer;  // model_type BPE, vocab_size, byte_fallback
  trainer.integer(3, 2);
  trainer.integer(4, pieces->size());
  trainer.integer(35, 1);
  model.text(2, trainer.bytes());
  MessageWriter normalizer;  // name, add_dummy_prefix, remove_extra_whitespaces
  normalizer.text(1, "identity");
  normalizer.integer(3, metadata.find_bool("tokenizer.ggml.add_space_prefix").value_or(true) ? 1 : 0);
  normalizer.integer(4, metadata.find_bool("tokenizer.ggml.remove_extra_whitespaces").value_or(false) ? 1 : 0);
  model.text(3, normalizer.bytes());
  return model.bytes();
}

}  // namespace mneme::train
