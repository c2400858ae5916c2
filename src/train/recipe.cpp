#include "train/recipe.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <set>
#include <type_traits>

#include "base/error.h"

namespace mneme::train {
namespace {

/// Collects what is wrong with a recipe, so that all of it is reported at once.
class Problems {
 public:
  explicit Problems(std::string source) : source_(std::move(source)) {}

  template <typename... Args>
  void add(const toml::source_region& where, fmt::format_string<Args...> format, Args&&... args) {
    add_text(fmt::format("line {}: {}", where.begin.line, fmt::format(format, std::forward<Args>(args)...)));
  }
  void add_text(std::string problem) { list_.push_back(std::move(problem)); }

  void check() const {
    if (list_.empty()) return;
    fail(ErrorCode::kInvalidArgument, "[recipe] {}: expected a valid recipe, found {} problem{}: {}", source_, list_.size(),
         list_.size() == 1 ? "" : "s", fmt::join(list_, "; "));
  }

 private:
  std::string source_;
  std::vector<std::string> list_;
};

/// One table of a recipe: takes known keys, then reports the rest as unknown.
class Section {
 public:
  Section(const toml::table& table, std::string name, Problems& problems)
      : table_(table), name_(std::move(name)), problems_(problems) {}

  template <typename T>
  void take(const char* key, T& target, double least = -std::numeric_limits<double>::infinity(),
            double most = std::numeric_limits<double>::infinity()) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    if constexpr (std::is_same_v<T, std::string>) {
      if (const auto value = node->value_exact<std::string>()) {
        target = *value;
      } else {
        problems_.add(node->source(), "{}.{}: expected a string", name_, key);
      }
    } else {
      const auto number = std::is_integral_v<T> ? integer_of(*node) : node->value<double>();
      if (!number || (std::is_same_v<T, bool> && !node->is_boolean())) {
        problems_.add(node->source(), "{}.{}: expected {}", name_, key,
                      std::is_same_v<T, bool> ? "true or false" : std::is_integral_v<T> ? "a whole number" : "a number");
      } else if (*number < std::max(least, std::is_unsigned_v<T> ? 0.0 : least) || *number > most) {
        problems_.add(node->source(), "{}.{}: expected a value from {} to {}, found {}", name_, key,
                      std::is_unsigned_v<T> ? std::max(least, 0.0) : least, most, *number);
      } else {
        target = static_cast<T>(*number);
      }
    }
  }

  template <typename Value>
  void take_choice(const char* key, Value& target, std::initializer_list<std::pair<const char*, Value>> choices) {
    std::string text;
    take(key, text);
    if (text.empty()) return;
    std::string names;
    for (const auto& [choice, value] : choices) {
      if (text == choice) {
        target = value;
        return;
      }
      names += names.empty() ? choice : std::string(", ") + choice;
    }
    problems_.add(table_.get(key)->source(), "{}.{}: expected one of {}, found {}", name_, key, names, text);
  }

  void take_list(const char* key, std::vector<size_t>& target) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    target.clear();
    const toml::array* array = node->as_array();
    bool valid = array != nullptr;
    if (valid) {
      for (const auto& element : *array) {
        const auto value = integer_of(element);
        valid = valid && value && *value > 0;
        if (valid) target.push_back(static_cast<size_t>(*value));
      }
    }
    if (!valid) problems_.add(node->source(), "{}.{}: expected a list of positive whole numbers", name_, key);
  }

  void require(const char* key) {
    if (table_.get(key) == nullptr) problems_.add(table_.source(), "{}: expected the key {}, found none", name_, key);
  }

  void finish() {
    for (const auto& [key, node] : table_) {
      if (!known_.contains(std::string(key.str()))) problems_.add(node.source(), "unknown key {}.{}", name_, key.str());
    }
  }

  const toml::source_region& source() const { return table_.source(); }

 private:
  static std::optional<double> integer_of(const toml::node& node) {
    if (node.is_boolean()) return node.value<bool>().value() ? 1.0 : 0.0;
    const auto value = node.value_exact<int64_t>();
    return value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt;
  }

  const toml::table& table_;
  std::string name_;
  Problems& problems_;
  std::set<std::string> known_;
};

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
  for (const char* key : {"width", "layers", "heads", "ffn_width", "context"}) s.require(key);
  s.take("width", r.model.width, 8, 65536);
  s.take("layers", r.model.n_layers, 1, 1024);
  s.take("heads", r.model.n_heads, 1, 1024);
  r.model.n_kv_heads = r.model.n_heads;
  s.take("kv_heads", r.model.n_kv_heads, 1, 1024);
  s.take("ffn_width", r.model.ffn_width, 1, 1 << 20);
  s.take("context", r.model.context, 16, kMostTokens);
  s.take("rope_base", r.model.rope_base, 1, 1e12);
  s.take("norm_eps", r.model.norm_eps, 0, 1);
  s.take("tied_head", r.model.tied_head);
  s.take_choice("products", r.gemm, {{"f32", GemmFormat::kFull}, {"bf16", GemmFormat::kBf16}});
  s.finish();
}

void read_tokenizer(Section s, Recipe& r) {
  s.take("size", r.vocabulary, 300, 1 << 20);
  s.take("sample_chars", r.tokenizer_sample_chars, 1000, 1e9);
  s.finish();
}

void read_data(Section s, Recipe& r) {
  s.take("books", r.books);
  s.take("story_model", r.story_model);
  s.take("stories", r.n_stories, 0, 1e7);
  s.take("answer_weight", r.weights.answer, 0, 1000);
  s.take("value_weight", r.weights.value, 0, 1000);
  s.take("text_weight", r.weights.text, 0, 1000);
  s.take("chatter_weight", r.weights.chatter, 0, 1000);
  s.take("user_weight", r.weights.user, 0, 1000);
  s.finish();
}

void read_optimizer(Section s, Recipe& r) {
  using Shape = RateSchedule::Shape;
  s.take_choice<std::string>("kind", r.optimizer, {{"adamw", "adamw"}, {"muon", "muon"}});
  s.require("steps");
  s.take("rate", r.rate.peak, 0, 10);
  s.take_choice("schedule", r.rate.shape, {{"constant", Shape::kConstant}, {"cosine", Shape::kCosine}, {"wsd", Shape::kWsd}});
  s.take("final_fraction", r.rate.final_fraction, 0, 1);
  s.take("warmup_steps", r.rate.warmup_steps, 0, 1e9);
  s.take("steps", r.rate.total_steps, 1, 1e9);
  s.take("decay_steps", r.rate.decay_steps, 0, 1e9);
  s.take("beta1", r.adamw.beta1, 0, 0.9999);
  s.take("beta2", r.adamw.beta2, 0, 0.99999);
  s.take("eps", r.adamw.eps, 0, 1);
  s.take("weight_decay", r.adamw.weight_decay, 0, 10);
  s.take("muon_momentum", r.muon_momentum, 0, 0.9999);
  s.take("clip_norm", r.clip_norm, 0, 1e6);
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
  if (stage.sequence_tokens > r.model.context) {
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
  if (!out.stages.empty() && stage.until_step <= out.stages.back().until_step) {
    problems.add(s.source(), "stage: expected until_step above the {} of the stage before, found {}",
                 out.stages.back().until_step, stage.until_step);
  }
  out.stages.push_back(stage);
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
  if (r.books.empty() && r.story_model.empty()) {
    problems.add(root.source(), "expected data.books or data.story_model, found neither");
  }
  if (!r.story_model.empty() && r.n_stories == 0) problems.add(root.source(), "expected data.stories with data.story_model, found none");
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
  const std::pair<const char*, Reader> sections[] = {{"run", read_run},   {"model", read_model},         {"tokenizer", read_tokenizer},
                                                     {"data", read_data}, {"optimizer", read_optimizer}, {"eval", read_eval}};
  for (const auto& [name, read] : sections) {
    const toml::node* node = root.get(name);
    if (node == nullptr) {
      read(Section(empty, name, problems), recipe);
    } else if (const toml::table* table = node->as_table()) {
      read(Section(*table, name, problems), recipe);
    } else {
      problems.add(node->source(), "{}: expected a table", name);
    }
  }
  for (const auto& [key, node] : root) {
    if (key == "stage") {
      const toml::array* stages = node.as_array();
      if (stages == nullptr) {
        problems.add(node.source(), "stage: expected [[stage]] tables");
        continue;
      }
      for (const auto& stage : *stages) {
        if (const toml::table* table = stage.as_table()) read_stage(Section(*table, "stage", problems), recipe, recipe, problems);
      }
    } else if (std::none_of(std::begin(sections), std::end(sections), [&](const auto& s) { return key == s.first; })) {
      problems.add(node.source(), "unknown section {}", key.str());
    }
  }
  check_whole(recipe, root, problems);
  problems.check();
  return recipe;
}

std::string recipe_path(const std::string& path) {
  constexpr std::string_view kShared = "shared:";
  if (!path.starts_with(kShared)) return path;
  const char* root = std::getenv("MNEME_SHARED");
  return std::string(root != nullptr ? root : "../shared") + "/" + path.substr(kShared.size());
}

}  // namespace mneme::train
