#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "recall/static_embedder.h"
#include "recall/word_vectors.h"

namespace mneme::cli {
namespace {

struct EmbedderCommand {
  std::vector<std::string> texts, nearest;
  std::string out;
  recall::WordVectorOptions options;
};

std::vector<std::string> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file() && entry.path().extension() == ".txt") files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) fail(ErrorCode::kNotFound, "[train embedder] expected texts, found none that ends in .txt");
  return files;
}

void train_embedder(const EmbedderCommand& command, const GlobalOptions& global) {
  const auto say = [&](const std::string& text) {
    if (!global.json) fmt::print(stderr, "{}\n", text);
  };
  const std::vector<std::string> files = files_of(command.texts);
  say(fmt::format("reading {} texts", files.size()));
  recall::WordVectorTrainer trainer(command.options);
  for (const std::string& file : files) trainer.add(read_text_file(file));
  const recall::WordVectors vectors = trainer.train([&](const char* step) { say(step); });
  write_word_vectors(vectors, command.out, fmt::format("{} texts", files.size()));
  recall::StaticEmbedder embedder(command.out);
  const uint64_t bytes = std::filesystem::file_size(command.out);
  Json nearest = Json::object();
  for (const std::string& word : command.nearest) {
    Json list = Json::array();
    for (const auto& [other, cosine] : embedder.nearest(word, 8)) list.push_back({{"word", other}, {"cosine", cosine}});
    nearest[word] = std::move(list);
  }
  if (global.json) {
    fmt::print("{}\n", Json{{"file", command.out},
                            {"bytes", bytes},
                            {"model", embedder.model()},
                            {"tokens", vectors.n_tokens},
                            {"words", vectors.words.size()},
                            {"dimension", command.options.dimension},
                            {"nearest", nearest}}
                           .dump());
    return;
  }
  fmt::print("{}: {} words of {} read, {} numbers each, {}\n", command.out, vectors.words.size(), vectors.n_tokens,
             command.options.dimension, format_byte_size(bytes));
  for (const auto& [word, list] : nearest.items()) {
    std::string line;
    for (const Json& each : list)
      line += fmt::format(" {} {:.2f}", each["word"].get<std::string>(), each["cosine"].get<double>());
    fmt::print("{}:{}\n", word, line);
  }
}

}  // namespace

void add_train_embedder(CLI::App& train, GlobalOptions& global) {
  auto embedder = std::make_shared<EmbedderCommand>();
  CLI::App* command =
      train.add_subcommand("embedder", "Train a small embedding model for long-term memory by counting words");
  recall::WordVectorOptions& o = embedder->options;
  command->add_option("TEXT", embedder->texts, "Text files, or folders of *.txt; English")->required();
  command->add_option("-o,--out", embedder->out, "GGUF file to write")->required();
  command->add_option("--dimension", o.dimension, "Numbers of a vector, a multiple of 32")->capture_default_str();
  command->add_option("--window", o.window, "Words on each side that count as context")->capture_default_str();
  command->add_option("--min-count", o.min_count, "Rarer words get no vector of their own")->capture_default_str();
  command->add_option("--max-words", o.max_words, "Most words")->capture_default_str();
  command->add_option("--pieces", o.n_grams, "Vectors of pieces of words, for words that are not known")
      ->capture_default_str();
  command->add_option("--power", o.eigenvalue_power, "Power of the eigenvalues")->capture_default_str();
  command->add_option("--rare", o.rare_weight, "A word of frequency p counts RARE / (RARE + p)")->capture_default_str();
  command->add_option("--common", o.n_common, "Directions shared by all texts to take out")->capture_default_str();
  command->add_option("--seed", o.seed)->capture_default_str();
  command->add_option("--nearest", embedder->nearest,
                      "Also print the words nearest to this one; may be given several times");
  command->footer(
      "One thread, a few minutes; the same texts give the same file. `--embed` of memory commands takes it.\n"
      "Example: mneme train embedder books/ -o models/words.gguf --nearest river");
  command->callback([embedder, &global] { train_embedder(*embedder, global); });
}

}  // namespace mneme::cli
