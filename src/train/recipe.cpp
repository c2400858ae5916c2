#include "train/recipe.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "tensor/bipolar.h"
#include "train/recipe_optimizer.h"
#include "train/recipe_reader.h"

namespace mneme::train {
namespace {

constexpr double kMostTokens = 1 << 24;

void read_run(Section s, Recipe& r) {
  s.take("name", r.name);
  s.take("seed", r.seed);
  s.take("micro_batch_tokens", r.micro_batch_tokens, 16, kMostTokens);
  s.take("checkpoint_minutes", r.checkpoint_minutes, 0, 1e6);
  s.take("keep_checkpoints", r.keep_checkpoints, 1, 1000);
  s.finish();
}

void read_model(Section s, Recipe& r) {
  s.take("base", r.base);
  s.take_choice("products", r.gemm, {{"f32", GemmFormat::kFull}, {"bf16", GemmFormat::kBf16}});
  s.take_choice("weights", r.bf16_weights, {{"f32", false}, {"bf16", true}});
  s.take("context", r.model.context, 16, kMostTokens);
  if (!r.base.empty()) {
    for (const char* key :
         {"width", "layers", "heads", "kv_heads", "ffn_width", "rope_base", "norm_eps", "tied_head"}) {
      s.refuse(key, "no sizes beside those of the base");
    }
    s.finish();
    return;
  }
  for (const char* key : {"width", "layers", "heads", "ffn_width", "context"}) s.require(key);
  s.take("width", r.model.width, 8, 65536);
  s.take("layers", r.model.n_layers, 1, 1024);
  s.take("heads", r.model.n_heads, 1, 1024);
  r.model.n_kv_heads = r.model.n_heads;
  s.take("kv_heads", r.model.n_kv_heads, 1, 1024);
  s.take("ffn_width", r.model.ffn_width, 1, 1 << 20);
  s.take("rope_base", r.model.rope_base, 1, 1e12);
  s.take("norm_eps", r.model.norm_eps, 0, 1);
  s.take("tied_head", r.model.tied_head);
  s.finish();
}

/// Without `operands`, those of the published law: weights in both directions and x in the product of weight gradients.
void read_precision(Section s, Recipe& r) {
  constexpr std::pair<std::string_view, ProductOperand> kNames[] = {
      {"x_forward", ProductOperand::kXForward}, {"w_forward", ProductOperand::kWForward},
      {"dy_for_dx", ProductOperand::kDyForDx},  {"w_for_dx", ProductOperand::kWForDx},
      {"dy_for_dw", ProductOperand::kDyForDw},  {"x_for_dw", ProductOperand::kXForDw}};
  std::string format;
  std::vector<std::string> operands = {"w_forward", "w_for_dx", "x_for_dw"};
  s.take("format", format);
  s.take("block", r.rounding.block, 1, 1e9);
  s.take_list("operands", operands);
  s.finish();
  if (format.empty()) {
    if (s.has("block") || s.has("operands")) s.complain("format", "expected a format such as E4M3, found none");
    return;
  }
  try {
    r.rounding.format = parse_small_float(format);
  } catch (const Error& e) {
    s.complain("format", e.what());
  }
  if (r.bf16_weights) s.complain("format", "expected model.weights = \"f32\" with it, found bf16");
  if (r.gemm != GemmFormat::kBf16) s.complain("format", "expected model.products = \"bf16\" with it, found f32");
  for (const std::string& name : operands) {
    const auto found =
        std::find_if(std::begin(kNames), std::end(kNames), [&](const auto& known) { return known.first == name; });
    if (found == std::end(kNames)) {
      s.complain("operands",
                 "expected x_forward, w_forward, dy_for_dx, w_for_dx, dy_for_dw or x_for_dw, found " + name);
    } else {
      r.rounding.operands |= 1u << static_cast<uint32_t>(found->second);
    }
  }
}

/// Keys of a table that may have a teacher.
void read_teacher(Section& s, const Recipe& r, const std::string& table, TeacherOptions& teacher) {
  s.take("teacher", teacher.file);
  s.take("kl_weight", teacher.kl_weight, 0, 1e6);
  s.take("ce_weight", teacher.ce_weight, 0, 1e6);
  if (!teacher) {
    if (s.has("kl_weight") || s.has("ce_weight"))
      s.complain("kl_weight", "expected " + table + ".teacher with it, found none");
    return;
  }
  if (teacher.kl_weight + teacher.ce_weight <= 0) {
    s.complain("kl_weight", "expected kl_weight or ce_weight above 0, found neither");
  }
  if (r.base.empty()) s.complain("teacher", "expected model.base with it, found none");
}

void read_adapter(Section s, Recipe& r) {
  using Start = AdapterOptions::Start;
  AdapterOptions& a = r.adapter.emplace();
  s.take("rank", a.rank, 1, 4096);
  a.alpha = 2.0f * static_cast<float>(a.rank);
  s.take("alpha", a.alpha, 1e-6, 1e6);
  s.take_list("targets", a.targets);
  s.take_choice("start", a.start, {{"zero", Start::kZero}, {"svd", Start::kSvd}});
  s.take_list("below", a.below);
  read_teacher(s, r, "adapter", a.teacher);
  s.finish();
  for (const std::string& target : a.targets) {
    constexpr std::string_view kTargets[] = {"all",         "attn_q",   "attn_k", "attn_v",
                                             "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    if (std::find(std::begin(kTargets), std::end(kTargets), target) == std::end(kTargets)) {
      s.complain("targets", fmt::format("expected names among {}, found {}", fmt::join(kTargets, ", "), target));
    }
  }
  if (r.bf16_weights) s.complain("rank", "expected no model.weights with an adapter, below which matrices are frozen");
  if (r.base.empty() && !a.below.empty()) s.complain("below", "expected model.base with it, found none");
  if (r.rounding.operands != 0 || r.weight_rounding) {
    s.complain("rank", "expected no precision or quantization with an adapter, below which matrices are frozen");
  }
  if (a.start == Start::kSvd && !a.teacher) s.complain("start", "expected adapter.teacher with svd, found none");
}

void read_quantization(Section s, Recipe& r) {
  std::string weights;
  s.require("weights");
  s.take("weights", weights);
  if (!weights.empty()) {
    try {
      r.weight_rounding = WeightRounding::parse(weights);
    } catch (const Error& e) {
      s.complain("weights", e.what());
    }
  }
  if (r.weight_rounding.kind == WeightRounding::Kind::kFloat) {
    s.take("block", r.weight_rounding.block, 1, 1e9);
  } else {
    s.refuse("block", "only with a small float such as E2M1");
  }
  s.take_choice("steps", r.weight_rounding.learned_steps, {{"fixed", false}, {"learned", true}});
  read_teacher(s, r, "quantization", r.teacher);
  s.finish();
  if (r.weight_rounding.learned_steps && bipolar::bits_of(r.weight_rounding.dtype) == 0) {
    s.complain("steps", "expected BIPOLAR1 to BIPOLAR8 with learned steps, found " + weights);
  }
  if (r.bf16_weights) s.complain("weights", "expected model.weights = \"f32\" with it, found bf16");
  if (r.rounding.operands != 0) s.complain("weights", "expected no [precision] with it, found one");
}

void read_experts(Section s, Recipe& r) {
  using Shared = ExpertOptions::Shared;
  using Start = ExpertOptions::Start;
  ExpertOptions& e = r.experts.emplace();
  constexpr double kMostExperts = 1024;
  s.take("count", e.count, 1, kMostExperts);
  s.take("used", e.used, 1, kMostExperts);
  s.take_choice("shared", e.shared,
                {{"frozen", Shared::kFrozen}, {"ternary", Shared::kTernary}, {"none", Shared::kNone}});
  s.take_choice("precision", e.ternary, {{"ternary", true}, {"full", false}});
  s.take_choice("activations", e.activations,
                {{"blocks", ActivationRounding::kBlocks},
                 {"tokens", ActivationRounding::kTokens},
                 {"none", ActivationRounding::kNone}});
  s.take_choice("start", e.start, {{"dense", Start::kDense}, {"random", Start::kRandom}});
  s.take_choice("layers", e.alternate, {{"all", false}, {"alternate", true}});
  s.take("balance", e.balance, 0, 1000);
  s.take_choice("train", e.trains_all, {{"experts", false}, {"all", true}});
  s.finish();
  if (e.used > e.count) s.complain("used", fmt::format("expected at most count {}, found {}", e.count, e.used));
  if (e.shared == Shared::kNone && e.used < 2) {
    s.complain("used", "expected at least 2 without a shared expert, whose weights are divided by their sum, found 1");
  }
  if (s.has("activations") && !e.ternary && e.shared != Shared::kTernary) {
    s.complain("activations", "expected ternary experts with it, found none");
  }
  if (r.base.empty()) s.complain("count", "expected model.base with experts, found none");
  if (r.adapter) s.complain("count", "expected no [adapter] with experts, found one");
  if (r.bf16_weights) s.complain("count", "expected model.weights = \"f32\" with experts, found bf16");
  if (r.rounding.operands != 0) s.complain("count", "expected no [precision] with experts, found one");
  if (r.weight_rounding) s.complain("count", "expected no [quantization] with experts, found one");
}

void read_tokenizer(Section s, Recipe& r) {
  if (!r.base.empty()) {
    for (const char* key : {"size", "sample_chars"}) s.refuse(key, "no vocabulary beside that of the base");
  }
  s.take("size", r.vocabulary, 300, 1 << 20);
  s.take("sample_chars", r.tokenizer_sample_chars, 1000, 1e9);
  s.finish();
}

void read_data(Section s, Recipe& r) {
  s.take("books", r.sources.books);
  s.take_list("text", r.sources.text);
  s.take_list("chat", r.sources.chat);
  s.take("generated_programs", r.mixture.generated_programs);
  s.take("program_share", r.mixture.program_share, 0, 1);
  // Who brings texts of their own, or wants programs, usually wants those alone.
  r.mixture.generated_dialogues = r.sources.text.empty() && r.sources.chat.empty() && !r.mixture.generated_programs;
  s.take("generated_dialogues", r.mixture.generated_dialogues);
  s.take("chat_share", r.mixture.chat_share, 0, 1);
  s.take("story_model", r.story_model);
  s.take("stories", r.n_stories, 0, 1e7);
  s.take("answer_weight", r.mixture.weights.answer, 0, 1000);
  s.take("value_weight", r.mixture.weights.value, 0, 1000);
  s.take("text_weight", r.mixture.weights.text, 0, 1000);
  s.take("chatter_weight", r.mixture.weights.chatter, 0, 1000);
  s.take("user_weight", r.mixture.weights.user, 0, 1000);
  s.finish();
}

void read_eval(Section s, Recipe& r) {
  s.take("every_steps", r.eval_every, 0, 1e9);
  s.take("probes", r.eval_probes, 1, 1e6);
  s.take_list("distances", r.eval_distances);
  s.finish();
}

void read_stage(Section s, const Recipe& r, Recipe& out, Problems& problems) {
  StageOptions stage;
  for (const char* key : {"until_step", "sequence_tokens"}) s.require(key);
  s.take("until_step", stage.until_step, 1, 1e9);
  s.take("sequence_tokens", stage.sequence_tokens, 16, kMostTokens);
  s.take("batch_tokens", stage.batch_tokens, 16, kMostTokens);
  s.take("plain_text_share", stage.plain_text_share, 0, 1);
  s.take("filler_share", stage.filler_share, 0, 0.98);
  s.take("short_every", stage.short_every, 0, 1e6);
  s.finish();
  if (stage.sequence_tokens > r.model.context && r.model.context > 0) {
    problems.add(s.source(), "stage: expected sequence_tokens of at most the context {}, found {}", r.model.context,
                 stage.sequence_tokens);
  }
  if (stage.sequence_tokens > r.micro_batch_tokens || r.micro_batch_tokens % stage.sequence_tokens != 0) {
    problems.add(s.source(), "stage: expected sequence_tokens that divide micro_batch_tokens {}, found {}",
                 r.micro_batch_tokens, stage.sequence_tokens);
  }
  if (stage.batch_tokens % r.micro_batch_tokens != 0) {
    problems.add(s.source(), "stage: expected batch_tokens that are a multiple of micro_batch_tokens {}, found {}",
                 r.micro_batch_tokens, stage.batch_tokens);
  }
  if (r.optimizer.layerwise && stage.batch_tokens != r.micro_batch_tokens) {
    const bool projects =
        r.optimizer.kind == OptimizerKind::kGalore || r.optimizer.kind == OptimizerKind::kNaturalGalore;
    if (!projects || r.clip_norm > 0) {
      problems.add(
          s.source(),
          "stage: expected batch_tokens equal to micro_batch_tokens {} with optimizer.layerwise, or galore and "
          "a clip_norm of 0, found {}",
          r.micro_batch_tokens, stage.batch_tokens);
    }
    out.optimizer.galore.gather = true;
  }
  if (!out.stages.empty() && stage.until_step <= out.stages.back().until_step) {
    problems.add(s.source(), "stage: expected until_step above the {} of the stage before, found {}",
                 out.stages.back().until_step, stage.until_step);
  }
  out.stages.push_back(stage);
}

/// Sections that mean something by being there.
bool is_optional(std::string_view section) {
  return section == "adapter" || section == "quantization" || section == "experts";
}

void check_whole(Recipe& r, const toml::table& root, Problems& problems) {
  r.model.vocabulary = r.vocabulary;
  try {
    if (r.model.width > 0) r.model.check();
  } catch (const Error& e) {
    const toml::node* model = root.get("model");
    problems.add(model != nullptr ? model->source() : root.source(), "{}", e.what());
  }
  if (r.stages.empty()) {
    problems.add(root.source(), "expected at least one [[stage]], found none");
  } else if (r.stages.back().until_step < r.rate.total_steps) {
    problems.add(root.source(), "expected stages up to step {}, found the last until step {}", r.rate.total_steps,
                 r.stages.back().until_step);
  }
  const bool has_texts = !r.sources.books.empty() || !r.story_model.empty() || !r.sources.text.empty();
  if (!has_texts && r.sources.chat.empty() && !r.mixture.generated_programs) {
    problems.add(
        root.source(),
        "expected data.text, data.chat, data.books, data.story_model or data.generated_programs, found none of "
        "them");
  }
  if (!has_texts && r.mixture.generated_dialogues && (!r.sources.chat.empty() || r.mixture.generated_programs)) {
    problems.add(root.source(),
                 "expected data.text, data.books or data.story_model with data.generated_dialogues, found none");
  }
  if (!r.story_model.empty() && r.n_stories == 0)
    problems.add(root.source(), "expected data.stories with data.story_model, found none");
}

}  // namespace

Recipe parse_recipe(std::string_view text, const std::string& source) {
  toml::table root;
  try {
    root = toml::parse(text, source);
  } catch (const toml::parse_error& e) {
    fail(ErrorCode::kInvalidArgument, "[recipe] {}: expected TOML, found on line {}: {}", source, e.source().begin.line,
         e.description());
  }
  Problems problems(source);
  Recipe recipe;
  const toml::table empty;
  using Reader = void (*)(Section, Recipe&);
  const std::pair<const char*, Reader> sections[] = {{"run", read_run},
                                                     {"model", read_model},
                                                     {"precision", read_precision},
                                                     {"quantization", read_quantization},
                                                     {"adapter", read_adapter},
                                                     {"experts", read_experts},
                                                     {"tokenizer", read_tokenizer},
                                                     {"data", read_data},
                                                     {"optimizer", read_optimizer},
                                                     {"eval", read_eval}};
  for (const auto& [name, read] : sections) {
    const toml::node* node = root.get(name);
    if (node == nullptr) {
      if (!is_optional(name)) read(Section(empty, name, problems), recipe);
    } else if (const toml::table* table = node->as_table()) {
      read(Section(*table, name, problems), recipe);
    } else {
      problems.add(node->source(), "{}: expected a table", name);
    }
  }
  for (const auto& [toml_key, node] : root) {
    const std::string_view key = toml_key.str();
    if (key == "stage") {
      const toml::array* stages = node.as_array();
      if (stages == nullptr) {
        problems.add(node.source(), "stage: expected [[stage]] tables");
        continue;
      }
      for (const auto& stage : *stages) {
        if (const toml::table* table = stage.as_table())
          read_stage(Section(*table, "stage", problems), recipe, recipe, problems);
      }
    } else if (std::none_of(std::begin(sections), std::end(sections), [&](const auto& s) { return key == s.first; })) {
      problems.add(node.source(), "unknown section {}", key);
    }
  }
  check_whole(recipe, root, problems);
  problems.check();
  return recipe;
}

}  // namespace mneme::train
