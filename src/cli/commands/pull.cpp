#include "weights/store/pull.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/byte_size.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "weights/store/model_store.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string name, hub, sha256, folder;
  bool verify = false;
};

Json file_json(const PulledFile& file) {
  return {{"path", file.path},
          {"url", file.url},
          {"bytes", file.download.bytes},
          {"sha256", file.download.sha256},
          {"verified", file.download.verified},
          {"was_present", file.was_present},
          {"resumed_from", file.download.resumed_from}};
}

void print_text(const PullResult& result, double seconds) {
  uint64_t fetched = 0;
  for (const PulledFile& file : result.files) {
    if (!file.was_present) fetched += file.download.bytes - file.download.resumed_from;
    fmt::print(stderr, "{}: {}, {}\n", file.path, format_byte_size(file.download.bytes),
               file.was_present         ? "there already"
               : file.download.verified ? "checksum verified"
                                        : "no checksum to verify");
  }
  if (fetched > 0) fmt::print(stderr, "{} in {:.1f} s\n", format_byte_size(fetched), seconds);
  fmt::print("{}\n", result.path);
}

void pull(const Options& options, const GlobalOptions& global) {
  PullOptions pull_options;
  pull_options.store = options.folder;
  pull_options.hub = Hub::from_environment(options.hub);
  pull_options.sha256 = options.sha256;
  pull_options.verify = options.verify;
  std::string title;
  std::unique_ptr<Progress> progress;
  pull_options.on_file = [&](const std::string& name, size_t index, size_t count) {
    progress.reset();
    title = count > 1 ? fmt::format("{} ({}/{})", name, index + 1, count) : name;
  };
  pull_options.download.on_progress = [&](uint64_t done, uint64_t total) {
    if (total == 0) return;
    if (progress == nullptr) progress = std::make_unique<Progress>(title, total, "bytes");
    progress->update(done);
  };
  const auto start = std::chrono::steady_clock::now();
  const PullResult result = pull_model(options.name, pull_options);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  progress.reset();
  if (!global.json) {
    print_text(result, seconds.count());
    return;
  }
  Json files = Json::array();
  for (const PulledFile& file : result.files) files.push_back(file_json(file));
  const Json report = {{"path", result.path}, {"files", std::move(files)}, {"seconds", seconds.count()}};
  fmt::print("{}\n", report.dump(2, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

void add_pull(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("pull", "Fetch a model from a hub or a URL");
  command->add_option("name", options->name, "OWNER/REPO[@REVISION][:FILE, QUANTISATION or safetensors], or a URL")
      ->required()
      ->type_name("NAME");
  command->add_option("--hub", options->hub,
                      fmt::format("Address of the hub (default: $MNEME_HUB, else {})", kDefaultHub));
  command->add_option("--sha256", options->sha256, "Digest the file must have (default: what the hub says)");
  command->add_option("--folder", options->folder,
                      "Where models are kept (default: $MNEME_MODELS, else ~/.cache/mneme)");
  command->add_flag("--verify", options->verify, "Read files that are there already and check their digest");
  command->footer(
      "A download that broke off goes on where it ended. The path of the model is printed on stdout, and other "
      "commands\n"
      "take the same NAME. Without a quantisation Q4_K_M is taken where there is one. HF_TOKEN opens gated "
      "repositories.\n"
      "Example: mneme pull OWNER/REPO:Q8_0 && mneme run OWNER/REPO:Q8_0");
  command->callback([options, &global] { pull(*options, global); });
}

}  // namespace mneme::cli
