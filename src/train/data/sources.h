#pragma once

#include <memory>
#include <string>
#include <vector>

#include "train/data/chat_source.h"
#include "train/data/text_source.h"

namespace mneme::train {

/// What a recipe takes its data from; paths as the recipe has them.
struct SourceOptions {
  std::string books;              ///< Folder of *.txt, or empty.
  std::vector<std::string> text;  ///< Files and folders of the user's own texts.
  std::vector<std::string> chat;  ///< Files and folders of chat JSONL.
};

/// The opened sources; null where the recipe names none.
struct DataSources {
  std::unique_ptr<TextSource> texts;
  std::unique_ptr<ChatSource> chat;
};

/// Reads the sources; `stories` were sampled before. Throws Error.
DataSources open_sources(const SourceOptions& options, std::vector<std::string> stories);

/// A path of a recipe: "shared:NAME" is NAME in the shared data folder ($MNEME_SHARED, by default ../shared beside the
/// current folder); anything else stays as it is.
std::string recipe_path(const std::string& path);

}  // namespace mneme::train
