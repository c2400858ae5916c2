#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/chat_terminal.h"
#include "cli/commands.h"
#include "cli/generation_json.h"
#include "cli/model_options.h"
#include "cli/plan_table.h"
#include "cli/sampling_flags.h"
#include "cli/session_options.h"
#include "engine/chat_session.h"
#include "engine/session/text_session.h"

namespace mneme::cli {
namespace {

struct Options {
  ModelOptions model;
  SamplingFlags sampling;
  SessionOptions session;
  std::string prompt, prompt_file, system, template_file;
  bool raw = false, has_prompt = false;
};

/// Text goes to stdout as it is made; with --json everything is printed at the end.
GenerationRequest printing_request(const Options& options, const GlobalOptions& global, Engine& engine) {
  GenerationRequest request = options.sampling.request(engine);
  if (!global.json) {
    request.on_event = [](const GenerationEvent& event) {
      std::fwrite(event.text.data(), 1, event.text.size(), stdout);
      std::fflush(stdout);
    };
  }
  return request;
}

void print_end(const GenerationResult& result, const Engine& engine, const GlobalOptions& global) {
  if (global.json) {
    fmt::print("{}\n", generation_json(result, engine).dump());
  } else {
    fmt::print("\n");
  }
  if (global.verbose) {
    fmt::print(stderr, "{}\n", generation_summary(result));
    if (const BlockStack* stack = engine.stack()) fmt::print(stderr, "{}\n", stack_line(*stack));
  }
}

void complete(const Options& options, const GlobalOptions& global, Engine& engine, SessionRecorder* recorder,
              PrefixCache* cache) {
  GenerationRequest request = printing_request(options, global, engine);
  if (recorder != nullptr) {
    print_end(continue_text(engine, *recorder, options.prompt, std::move(request), cache), engine, global);
    return;
  }
  request.prompt = engine.tokenizer().encode(options.prompt, {true, true});
  print_end(generate(engine, std::move(request), cache), engine, global);
}

void run(Options options, const GlobalOptions& global) {
  if (!options.prompt_file.empty()) options.prompt = read_text_file(options.prompt_file);
  const bool goes_on = options.raw && options.session.used();  // without a prompt: where the text stopped
  const bool one_shot = options.has_prompt || goes_on;
  if (one_shot && options.prompt.empty() && !goes_on)
    fail(ErrorCode::kInvalidArgument, "[run] expected a prompt, found an empty text");
  if (!one_shot && ::isatty(STDIN_FILENO) == 0) {
    fail(ErrorCode::kInvalidArgument, "[run] expected -p TEXT, --file FILE or a terminal to chat on");
  }
  Ledger ledger;
  PlanRequest plan = options.model.request();
  plan.grammar = options.sampling.has_grammar();
  plan.session = options.session.used();
  const bool watched = options.model.kv == "auto" && !one_shot;
  if (watched) plan.guard_tokens = KvWatch::kWindow;
  const auto engine = Engine::load(options.model.model, plan, ledger);
  if (!engine->model().output) {
    fail(ErrorCode::kUnsupported, "[run] {} is an encoder: use `mneme embed`", options.model.model);
  }
  if (global.verbose) {
    fmt::print(stderr, "{}", plan_table(engine->plan(), measured_read_rate(engine->plan())));
  }
  std::optional<ChatTemplate> chat;
  if (!options.raw) {
    chat = options.template_file.empty()
               ? model_chat_template(*engine)
               : std::optional(ChatTemplate::from_source(read_text_file(options.template_file), "", ""));
  }
  if (options.session.used() && !chat && !options.raw) {
    fail(ErrorCode::kInvalidArgument, "[run] {} has no chat template: a session needs --template FILE or --raw",
         options.model.model);
  }
  const auto recorder = options.session.open(*engine);
  TieredCache tiers = options.session.open_cache(*engine);
  PrefixCache* const cache = tiers.cache.get();
  if (one_shot) {
    if (!chat) {
      complete(options, global, *engine, recorder.get(), cache);
    } else {
      ChatSession session(*engine, std::move(*chat), cache);
      if (recorder) session.keep_in(*recorder);
      if (!recorder || !options.system.empty()) session.set_system(options.system);
      print_end(session.ask(options.prompt, printing_request(options, global, *engine)), *engine, global);
    }
    if (recorder) report_trouble(*recorder);
    tiers.finish_writing();
    return;
  }
  if (!chat) fmt::print(stderr, "This model has no chat template: each line you type is continued as plain text.\n");
  std::optional<KvWatch> watch;
  if (watched) watch.emplace(*engine, options.model.kv_auto(), options.session.used());
  chat_on_terminal(*engine, std::move(chat), options.system, options.sampling, global, recorder.get(), cache,
                   watch ? &*watch : nullptr);
  tiers.finish_writing();
}

}  // namespace

void add_run(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "Chat with a model, or answer one prompt");
  options->model.add_to(*command);
  auto* prompt = command->add_option("-p,--prompt", options->prompt, "Answer this and end");
  auto* file =
      command->add_option("-f,--file", options->prompt_file, "Answer the text of this file and end")->excludes(prompt);
  command->add_flag("--raw", options->raw, "Complete plain text: no chat template, only the text on stdout");
  command->add_option("--system", options->system, "System message");
  command->add_option("--template", options->template_file, "Chat template in a file, instead of the model's own");
  options->session.add_to(*command);
  options->sampling.add_to(*command);
  command->footer(
      "Without -p it opens a chat; /help lists what can be typed there, Ctrl-C stops an answer.\n"
      "Examples: mneme run model.gguf --memory 2G\n"
      "          mneme run model.gguf --session work      (the same again goes on with that chat)\n"
      "          mneme run model.gguf --raw -p \"Once upon a time\" -n 100 --temp 0");
  command->callback([options, prompt, file, &global] {
    options->has_prompt = prompt->count() + file->count() > 0;
    run(*options, global);
  });
}

}  // namespace mneme::cli
