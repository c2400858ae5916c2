#include "train/sweep.h"

#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"

namespace mneme::train {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostRuns = 10000;

struct Choice {
  std::string label;
  toml::table changes;
};

struct Axis {
  std::string name;
  uint32_t line;
  std::vector<Choice> choices;
};

template <typename... Args>
[[noreturn]] void refuse(const std::string& source, uint32_t line, fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorCode::kInvalidArgument, "[sweep] {}: line {}: {}", source, line,
       fmt::format(format, std::forward<Args>(args)...));
}

/// Whether a label can be a part of a folder's name.
bool is_name(std::string_view label) {
  return !label.empty() && std::all_of(label.begin(), label.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.';
  }) && label.front() != '.';
}

Axis read_axis(std::string_view name, const toml::node& node, const std::string& source) {
  Axis axis{std::string(name), node.source().begin.line, {}};
  const toml::array* tables = node.as_array();
  if (tables == nullptr || tables->empty()) refuse(source, axis.line, "expected [[axis.{}]] tables", name);
  for (const toml::node& element : *tables) {
    const toml::table* table = element.as_table();
    const uint32_t line = element.source().begin.line;
    if (table == nullptr) refuse(source, line, "expected [[axis.{}]] tables", name);
    Choice choice{(*table)["label"].value_or(std::string()), *table};
    if (!is_name(choice.label)) {
      refuse(source, line, "expected a label of letters, digits, '_' and '.', found '{}'", choice.label);
    }
    for (const Choice& other : axis.choices) {
      if (other.label == choice.label)
        refuse(source, line, "expected labels that differ, found {} twice", choice.label);
    }
    choice.changes.erase("label");
    axis.choices.push_back(std::move(choice));
  }
  return axis;
}

void merge(toml::table& into, const toml::table& changes) {
  for (const auto& [key, value] : changes) {
    toml::table* below = into[key].as_table();
    if (below != nullptr && value.is_table()) {
      merge(*below, *value.as_table());
    } else {
      into.insert_or_assign(key, value);
    }
  }
}

std::string to_text(const toml::table& table) {
  std::ostringstream text;
  text << table << '\n';
  return text.str();
}

/// What tokenizer and stories depend on, except for the seed.
std::string data_text(const SweepRun& run) {
  const toml::table recipe = toml::parse(run.recipe_text);
  toml::table part;
  for (const char* key : {"data", "tokenizer"}) {
    if (const toml::node* node = recipe.get(key)) part.insert(key, *node);
  }
  return to_text(part) + run.recipe.base;
}

/// Parameters of the blocks, which scaling laws count.
size_t block_parameters(LlamaModel<float>& model) {
  size_t n = 0;
  for (const Parameter<float>& p : model.parameters().all()) {
    const bool counts = p.role != Role::kEmbedding && p.role != Role::kHead && p.role != Role::kStep;
    n += counts ? p.size() : 0;
  }
  return n;
}

Json result_of(const SweepRun& run, Trainer& trainer, const Json& bytes, size_t loss_tokens) {
  const Progression& done = trainer.progression();
  Json result = {{"name", run.name}, {"labels", Json::object()}};
  for (const auto& [axis, label] : run.labels) result["labels"][axis] = label;
  result["parameters"] = block_parameters(trainer.model());
  result["all_parameters"] = trainer.model().parameters().n_values();
  result["tokens"] = done.tokens;
  result["steps"] = done.step;
  result["loss"] = trainer.held_out_loss(loss_tokens);
  result["seconds"] = done.seconds;
  result["bytes"] = bytes;
  const OperandRounding& rounding = run.recipe.rounding;
  if (rounding.operands != 0) {
    result["exponent_bits"] = rounding.format.exponent_bits;
    result["mantissa_bits"] = rounding.format.mantissa_bits;
    result["block"] = rounding.block;
  }
  return result;
}

void share_prepared_data(const SweepRun& run, const std::vector<SweepRun>& runs, const std::string& directory) {
  const fs::path own = fs::path(directory) / run.name;
  for (const SweepRun& other : runs) {
    if (other.name == run.name) return;
    const fs::path first = fs::path(directory) / other.name;
    if (!fs::exists(first / "tokenizer.model") || data_text(other) != data_text(run)) continue;
    for (const char* file : {"tokenizer.model", "stories.txt"}) {
      if (fs::exists(first / file) && !fs::exists(own / file)) fs::copy_file(first / file, own / file);
    }
    return;
  }
}

/// The runs' lines; those of runs that are not complete are missing.
void write_results(const std::vector<SweepRun>& runs, const std::string& directory) {
  AtomicFile out(directory + "/runs.jsonl");
  for (const SweepRun& run : runs) {
    const std::string result = directory + "/" + run.name + "/result.json";
    if (fs::exists(result)) out.write(read_text_file(result));
  }
  out.commit();
}

}  // namespace

std::vector<SweepRun> parse_sweep(std::string_view text, const std::string& source) {
  toml::table root;
  try {
    root = toml::parse(text, source);
  } catch (const toml::parse_error& e) {
    refuse(source, e.source().begin.line, "expected TOML, found: {}", e.description());
  }
  std::vector<Axis> axes;
  const toml::table* axis_table = root["axis"].as_table();
  if (axis_table == nullptr) refuse(source, 1, "expected [[axis.NAME]] tables, found none");
  for (const auto& [name, node] : *axis_table) {
    axes.push_back(read_axis(name.str(), node, source));
  }
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.line < b.line; });
  root.erase("axis");

  size_t n_runs = 1;
  for (const Axis& axis : axes) {
    n_runs *= axis.choices.size();
    if (n_runs > kMostRuns) refuse(source, axis.line, "expected at most {} runs, found more", kMostRuns);
  }
  std::vector<SweepRun> runs;
  for (size_t i = 0; i < n_runs; ++i) {
    SweepRun run;
    toml::table recipe = root;
    size_t block = n_runs;
    for (const Axis& axis : axes) {
      block /= axis.choices.size();
      const Choice& choice = axis.choices[i / block % axis.choices.size()];
      merge(recipe, choice.changes);
      run.labels.emplace_back(axis.name, choice.label);
      run.name += run.name.empty() ? choice.label : "-" + choice.label;
    }
    run.recipe_text = to_text(recipe);
    run.recipe = parse_recipe(run.recipe_text, source + ", run " + run.name);
    runs.push_back(std::move(run));
  }
  return runs;
}

bool run_sweep(const std::vector<SweepRun>& runs, const SweepOptions& options, const Trainer::Callbacks& callbacks,
               const std::function<void(const SweepRun&, const Json&)>& done) {
  for (const SweepRun& run : runs) {
    const std::string directory = options.directory + "/" + run.name, result_file = directory + "/result.json";
    if (fs::exists(result_file)) {
      if (done) done(run, parse_json(read_text_file(result_file), result_file));
      continue;
    }
    fs::create_directories(directory);
    share_prepared_data(run, runs, options.directory);
    Ledger ledger(options.memory_limit);
    Trainer trainer(ledger, run.recipe, run.recipe_text, directory, !list_checkpoints(directory).empty(), callbacks);
    const Json bytes = trainer.planned_bytes();
    if (!trainer.run()) return false;
    const Json result = result_of(run, trainer, bytes, options.loss_tokens);
    AtomicFile out(result_file);
    out.write(result.dump() + "\n");
    out.commit();
    write_results(runs, options.directory);
    if (done) done(run, result);
  }
  write_results(runs, options.directory);
  return true;
}

}  // namespace mneme::train
