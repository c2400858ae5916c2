#include "cli/chat_terminal.h"

#include <editline/readline.h>
#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/byte_size.h"
#include "base/error.h"
#include "budget/resident.h"
#include "cli/generation_json.h"
#include "cli/plan_table.h"
#include "cli/session_options.h"

namespace mneme::cli {
namespace {

constexpr const char* kHelp =
    "/help              this list\n"
    "/reset             forget the dialogue\n"
    "/undo              take the last question and its answer back\n"
    "/again             answer the last question again\n"
    "/system TEXT       replace the system message (empty: remove it)\n"
    "/context           tokens used of the context\n"
    "/memory [LIMIT]    bytes in use by kind; with a size, change the limit\n"
    "/temp T            temperature from now on\n"
    "/max N             longest answer in tokens (0: no limit)\n"
    "/quit              leave (or Ctrl-D)\n";

std::atomic<bool> g_interrupted{false};

void on_interrupt(int) { g_interrupted.store(true); }

/// A line from the terminal, or nothing at its end.
std::optional<std::string> read_line(const char* prompt) {
  char* line = ::readline(prompt);
  if (line == nullptr) return std::nullopt;
  std::string text(line);
  std::free(line);  // NOLINT: the library hands out malloc'ed memory
  if (!text.empty()) ::add_history(text.c_str());
  return text;
}

class Terminal {
 public:
  Terminal(Engine& engine, std::optional<ChatTemplate> chat, const std::string& system, const SamplingFlags& sampling,
           const GlobalOptions& global, SessionRecorder* recorder, PrefixCache* cache, KvWatch* watch)
      : engine_(engine), sampling_(sampling), global_(global), recorder_(recorder), cache_(cache), watch_(watch) {
    if (chat) {
      session_.emplace(engine, std::move(*chat), cache);
      if (recorder != nullptr) session_->keep_in(*recorder);
      if (recorder == nullptr || !system.empty()) session_->set_system(system);
    }
  }

  void loop() {
    while (const auto line = read_line("> ")) {
      if (line->empty()) continue;
      try {
        if (line->front() == '/') {
          if (!command(*line)) return;
        } else {
          answer([&](GenerationRequest request) { return ask(*line, std::move(request)); });
          if (watch_ != nullptr && session_) watch_->after_answer(*session_);
        }
      } catch (const Error& e) {
        fmt::print(stderr, "error: {}{}\n", e.what(), e.hint().empty() ? "" : fmt::format(" ({})", e.hint()));
      }
      if (recorder_ != nullptr) report_trouble(*recorder_);
    }
    fmt::print("\n");
  }

 private:
  GenerationResult ask(const std::string& text, GenerationRequest request) {
    if (session_) return session_->ask(text, std::move(request));
    request.prompt = engine_.tokenizer().encode(text, {true, true});
    Scheduler scheduler(engine_, cache_);
    plain_ = &scheduler;
    GenerationResult result;
    const auto print = std::move(request.on_event);
    request.on_event = [&](const GenerationEvent& event) {
      print(event);
      if (event.finished != nullptr) result = *event.finished;
    };
    plain_id_ = scheduler.submit(std::move(request));
    scheduler.run();
    plain_ = nullptr;
    if (result.reason == FinishReason::kError) throw Error(ErrorCode::kOutOfBudget, result.error);
    return result;
  }

  template <typename Produce>
  void answer(Produce produce) {
    GenerationRequest request = sampling_.request(engine_);
    request.on_event = [this](const GenerationEvent& event) {
      std::fwrite(event.text.data(), 1, event.text.size(), stdout);
      std::fflush(stdout);
      if (!g_interrupted.exchange(false)) return;
      if (session_) session_->cancel();
      if (plain_ != nullptr) plain_->cancel(plain_id_);
    };
    g_interrupted = false;
    struct sigaction action {}, before {};
    action.sa_handler = on_interrupt;
    ::sigaction(SIGINT, &action, &before);
    std::optional<GenerationResult> result;
    try {
      result = produce(std::move(request));
    } catch (...) {
      ::sigaction(SIGINT, &before, nullptr);
      throw;
    }
    ::sigaction(SIGINT, &before, nullptr);
    fmt::print("\n");
    if (result->reason == FinishReason::kContext) fmt::print(stderr, "(the context is full: /undo or /reset)\n");
    if (result->reason == FinishReason::kCancelled) fmt::print(stderr, "(stopped)\n");
    if (global_.verbose) fmt::print(stderr, "{}\n", generation_summary(*result));
  }

  /// Returns false to leave.
  bool command(const std::string& line) {
    const size_t blank = line.find(' ');
    const std::string name = line.substr(0, blank);
    const std::string argument = blank == std::string::npos ? "" : line.substr(line.find_first_not_of(' ', blank) == std::string::npos
                                                                                   ? line.size()
                                                                                   : line.find_first_not_of(' ', blank));
    if (name == "/quit" || name == "/exit") return false;
    if (name == "/help") {
      fmt::print("{}", kHelp);
    } else if (name == "/memory") {
      memory(argument);
    } else if (name == "/temp") {
      sampling_.options.temperature = std::stof(number(argument, "/temp"));
    } else if (name == "/max") {
      sampling_.n_predict = std::stoi(number(argument, "/max"));
    } else if (!session_) {
      fail(ErrorCode::kInvalidArgument, "[chat] '{}' needs a model with a chat template, or is unknown; /help lists what there is", name);
    } else if (name == "/reset") {
      session_->reset();
    } else if (name == "/undo") {
      if (!session_->undo()) fmt::print(stderr, "nothing to take back\n");
    } else if (name == "/again") {
      answer([&](GenerationRequest request) { return session_->ask_again(std::move(request)); });
    } else if (name == "/system") {
      session_->set_system(argument);
    } else if (name == "/context") {
      fmt::print("{} of {} tokens\n", session_->n_tokens(), engine_.plan().context);
    } else {
      fail(ErrorCode::kInvalidArgument, "[chat] unknown command '{}'; /help lists what there is", name);
    }
    return true;
  }

  static const std::string& number(const std::string& text, const char* command) {
    if (text.empty() || text.find_first_not_of("0123456789.") != std::string::npos || text.size() > 8 || text == ".") {
      fail(ErrorCode::kInvalidArgument, "[chat] {}: expected a number, found '{}'", command, text);
    }
    return text;
  }

  void memory(const std::string& limit) {
    Ledger& ledger = engine_.ledger();
    if (!limit.empty()) {
      const uint64_t missing = engine_.set_memory_limit(parse_byte_size(limit));
      if (missing > 0) fmt::print(stderr, "{} more are in use than that; nothing new is admitted until they are free\n", format_byte_size(missing));
    }
    for (size_t tag = 0; tag < kTags; ++tag) {
      const uint64_t bytes = ledger.used(Tier::kRam, static_cast<Tag>(tag));
      if (bytes > 0) fmt::print("{:<12} {:>10}\n", tag_name(static_cast<Tag>(tag)), format_byte_size(bytes));
    }
    fmt::print("{:<12} {:>10}  of {}; resident {}\n", "total", format_byte_size(ledger.used(Tier::kRam)),
               format_byte_size(ledger.limit(Tier::kRam)), format_byte_size(resident_bytes()));
    if (const BlockStack* stack = engine_.stack()) fmt::print("{}\n", stack_line(*stack));
  }

  Engine& engine_;
  SamplingFlags sampling_;
  const GlobalOptions& global_;
  SessionRecorder* recorder_;
  PrefixCache* cache_;
  KvWatch* watch_;
  std::optional<ChatSession> session_;
  Scheduler* plain_ = nullptr;
  Scheduler::RequestId plain_id_ = 0;
};

}  // namespace

void chat_on_terminal(Engine& engine, std::optional<ChatTemplate> chat, const std::string& system,
                      const SamplingFlags& sampling, const GlobalOptions& global, SessionRecorder* recorder,
                      PrefixCache* cache, KvWatch* watch) {
  if (const BlockStack* stack = engine.stack()) fmt::print(stderr, "{}\n", stack_line(*stack));
  fmt::print(stderr, "{} tokens of context in {}; /help lists commands\n", engine.plan().context,
             format_byte_size(engine.plan().total()));
  Terminal(engine, std::move(chat), system, sampling, global, recorder, cache, watch).loop();
}

}  // namespace mneme::cli
