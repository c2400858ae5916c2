#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/philox.h"
#include "train/data/dialogue.h"

namespace mneme::train {

/// Conversations of the user's own, from chat JSONL: a line is {"messages": [{"role": ..., "content": ...}, ...]} with
/// roles system, user and assistant. The assistant's messages are what is learnt. About one conversation in thirty is
/// held out.
class ChatSource {
 public:
  /// `paths` as in Documents, files of JSONL only. Throws Error: kNotFound, or kCorruptData that names file and line.
  explicit ChatSource(std::span<const std::string> paths);

  /// A conversation of the given part, every one as likely.
  const std::vector<Turn>& conversation(PhiloxStream& random, Split split) const;

  size_t size() const { return train_.size() + held_out_.size(); }

 private:
  std::vector<std::vector<Turn>> train_, held_out_;
};

}  // namespace mneme::train
