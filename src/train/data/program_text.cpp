#include "train/data/program_text.h"

#include <utility>
#include <vector>

#include "train/abacus/program_maker.h"

namespace mneme::train {
namespace {

constexpr uint64_t kMostPrograms = 4;

struct Range {
  size_t begin, end;
};

/// The text of a file; `solutions` gets where each one lies in it.
std::string file_of(PhiloxStream& random, Split split, std::vector<Range>* solutions) {
  std::string text;
  const uint64_t n = 1 + random.next_below(kMostPrograms);
  for (uint64_t i = 0; i < n; ++i) {
    const abacus::DescribedProgram program = abacus::make_program(random, split);
    if (i > 0) text += '\n';
    const size_t begin = text.size() + program.prompt.size();
    text += program.text();
    if (solutions != nullptr) solutions->push_back({begin, text.size()});
  }
  return text;
}

}  // namespace

std::string program_file(PhiloxStream& random, Split split) {
  return file_of(random, split, nullptr);
}

WeightedTokens encode_programs(const TrainTokenizer& tokenizer, PhiloxStream& random, Split split,
                               const LossWeights& weights) {
  std::vector<Range> solutions;
  const std::string text = file_of(random, split, &solutions);
  WeightedTokens out;
  out.push(TrainTokenizer::kBos, 0.0f);
  size_t at = 0;
  for (const TokenSpan& token : tokenizer.encode(text)) {
    while (at < solutions.size() && solutions[at].end <= token.begin) ++at;
    const bool answers = at < solutions.size() && token.end > solutions[at].begin;
    out.push(token.id, answers ? weights.answer : weights.text);
  }
  out.push(TrainTokenizer::kEos, weights.text);
  return out;
}

}  // namespace mneme::train
