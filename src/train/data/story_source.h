#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "budget/ledger.h"
#include "train/sampler.h"

namespace mneme::train {

/// Short texts sampled from a small llama model in a GGUF file with a SentencePiece vocabulary (stories260K): cheap simple
/// English for pretraining mixtures. The same seed gives the same stories for the same number of threads.
/// `progress` is called with the stories done so far. Throws Error for files of another kind.
std::vector<std::string> sample_stories(Ledger& ledger, const std::string& model_path, size_t n_stories,
                                        const SampleOptions& options, const std::function<void(size_t)>& progress);

/// Stories of a file written by cached_stories().
std::vector<std::string> read_stories(const std::string& path);

/// As sample_stories(), kept in a file with one story a line, so that it is paid once: an existing file made with the same
/// arguments is read instead.
std::vector<std::string> cached_stories(Ledger& ledger, const std::string& model_path, const std::string& cache_path,
                                        size_t n_stories, const SampleOptions& options,
                                        const std::function<void(size_t)>& progress);

}  // namespace mneme::train
