#include "train/data/story_source.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <functional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "weights/gguf_reader.h"
#include "weights/model_file.h"

namespace mneme::train {
namespace {

constexpr size_t kBatch = 128;

/// Text of SentencePiece pieces: U+2581 is a space, <0xNN> a byte, control pieces are dropped.
std::string piece_text(std::string_view piece) {
  if (piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with(">")) {
    unsigned byte = 0;
    std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
    return std::string(1, static_cast<char>(byte));
  }
  std::string text;
  for (size_t i = 0; i < piece.size();) {
    if (piece.substr(i).starts_with("\xE2\x96\x81")) {
      text += ' ';
      i += 3;
    } else {
      text += piece[i++];
    }
  }
  return text;
}

std::string header_line(const std::string& model_path, size_t n_stories, const SampleOptions& options) {
  return fmt::format("# {} stories of {}, temperature {}, top-p {}, seed {}\n", n_stories,
                     std::filesystem::path(model_path).filename().string(), options.temperature, options.top_p,
                     options.seed);
}

}  // namespace

std::vector<std::string> sample_stories(Ledger& ledger, const std::string& model_path, size_t n_stories,
                                        const SampleOptions& options, const std::function<void(size_t)>& progress) {
  const ModelFile file = open_gguf(model_path);
  const auto pieces = file.metadata().find_array_string("tokenizer.ggml.tokens").value_or(std::span<const std::string_view>{});
  const auto bos = static_cast<int32_t>(file.metadata().get_u64("tokenizer.ggml.bos_token_id"));
  LlamaModel<float> model(ledger, llama_sizes_of(file), GemmFormat::kFull);
  load_weights(file, model);
  if (pieces.size() != model.sizes().vocabulary || static_cast<size_t>(bos) >= pieces.size()) {
    fail(ErrorCode::kCorruptData, "[stories] {}: expected {} vocabulary pieces, found {}", model_path,
         model.sizes().vocabulary, pieces.size());
  }
  Sampler sampler(ledger, model, kBatch, model.sizes().context);
  std::vector<std::string> stories;
  for (size_t done = 0; done < n_stories; done += kBatch) {
    SampleOptions batch_options = options;
    batch_options.seed = options.seed + done / kBatch;
    const std::vector<std::vector<int32_t>> prompts(std::min(kBatch, n_stories - done), {bos});
    // The model ends a story by starting the next one.
    for (const auto& ids : sampler.run(prompts, bos, batch_options)) {
      std::string story;
      for (const int32_t id : ids) story += piece_text(pieces[static_cast<size_t>(id)]);
      std::replace(story.begin(), story.end(), '\n', ' ');
      const size_t first = story.find_first_not_of(' ');
      stories.push_back(first == std::string::npos ? std::string() : story.substr(first));
    }
    if (progress) progress(stories.size());
  }
  return stories;
}

std::vector<std::string> read_stories(const std::string& path) {
  const std::string text = read_text_file(path);
  std::vector<std::string> stories;
  size_t begin = text.starts_with("#") ? text.find('\n') + 1 : 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    stories.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return stories;
}

std::vector<std::string> cached_stories(Ledger& ledger, const std::string& model_path, const std::string& cache_path,
                                        size_t n_stories, const SampleOptions& options,
                                        const std::function<void(size_t)>& progress) {
  const std::string header = header_line(model_path, n_stories, options);
  if (std::filesystem::exists(cache_path) && read_text_file(cache_path).starts_with(header)) return read_stories(cache_path);
  const auto stories = sample_stories(ledger, model_path, n_stories, options, progress);
  AtomicFile out(cache_path);
  out.write(header);
  for (const std::string& story : stories) out.write(story + "\n");
  out.commit();
  return stories;
}

}  // namespace mneme::train
