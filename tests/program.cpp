#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace mneme {
namespace {

constexpr std::chrono::seconds kPatience{60};

/// A temporary file without a name.
class TemporaryFile {
 public:
  TemporaryFile() : file_(std::tmpfile()) {
    if (file_ == nullptr) throw std::runtime_error("cannot create a temporary file");
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { std::fclose(file_); }

  int descriptor() const { return ::fileno(file_); }
  void fill(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), file_);
    std::fflush(file_);
    ::lseek(descriptor(), 0, SEEK_SET);
  }
  std::string content() const {
    std::string text;
    char piece[4096];
    for (off_t at = 0;;) {
      const ssize_t n = ::pread(descriptor(), piece, sizeof piece, at);
      if (n <= 0) return text;
      text.append(piece, static_cast<size_t>(n));
      at += n;
    }
  }

 private:
  std::FILE* file_;
};

/// The arguments as exec() wants them; they point into the strings.
std::vector<char*> exec_arguments(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

std::string program_path() {
  const char* chosen = std::getenv("MNEME_BINARY");
  return chosen != nullptr ? chosen : MNEME_BUILT_BINARY;
}

std::string Outcome::error() const {
  constexpr std::string_view kPrefix = "error: ";
  const bool one_line = !err.empty() && err.find('\n') == err.size() - 1;
  if (status <= 0 || !one_line || !err.starts_with(kPrefix)) return "";
  return err.substr(kPrefix.size(), err.size() - kPrefix.size() - 1);
}

Outcome run_program(const std::string& program, const std::vector<std::string>& arguments,
                    const ProcessOptions& options) {
  TemporaryFile in, out, err;
  in.fill(options.input);
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::vector<char*> argv = exec_arguments(words);
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("cannot fork");
  if (pid == 0) {
    ::dup2(in.descriptor(), STDIN_FILENO);
    ::dup2(out.descriptor(), STDOUT_FILENO);
    ::dup2(err.descriptor(), STDERR_FILENO);
    for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  int ended = 0;
  rusage usage{};
  if (::wait4(pid, &ended, 0, &usage) != pid) throw std::runtime_error("cannot wait for the program");
  Outcome outcome;
  if (WIFEXITED(ended)) outcome.status = WEXITSTATUS(ended);
  if (WIFSIGNALED(ended)) outcome.signal = WTERMSIG(ended);
  outcome.out = out.content();
  outcome.err = err.content();
  outcome.peak_bytes = static_cast<uint64_t>(usage.ru_maxrss) << 10;
  return outcome;
}

Outcome mneme_run(std::vector<std::string> arguments, const ProcessOptions& options) {
  arguments.insert(arguments.begin(), {"--threads", "1"});
  return run_program(program_path(), arguments, options);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<float> read_floats(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

TerminalProgram::TerminalProgram(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {program_path(), "--threads", "1"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::vector<char*> argv = exec_arguments(words);
  winsize size{};
  size.ws_row = 50;
  size.ws_col = 200;
  pid_ = ::forkpty(&terminal_, nullptr, nullptr, &size);
  if (pid_ < 0) throw std::runtime_error("cannot open a pseudo-terminal");
  if (pid_ == 0) {
    ::setenv("TERM", "dumb", 1);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
}

TerminalProgram::~TerminalProgram() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(terminal_);
}

void TerminalProgram::type(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(terminal_, text.data(), text.size());
    if (n <= 0) throw std::runtime_error("cannot write to the terminal");
    text.remove_prefix(static_cast<size_t>(n));
  }
}

bool TerminalProgram::read_more() {
  pollfd ready{terminal_, POLLIN, 0};
  if (::poll(&ready, 1, 100) <= 0) return true;
  char piece[4096];
  const ssize_t n = ::read(terminal_, piece, sizeof piece);
  if (n <= 0) return false;  // the other side is closed
  screen_.append(piece, static_cast<size_t>(n));
  return true;
}

bool TerminalProgram::wait_for(std::string_view text) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (bool open = true;;) {
    const size_t at = screen_.find(text, seen_);
    if (at != std::string::npos) {
      seen_ = at + text.size();
      return true;
    }
    if (!open || std::chrono::steady_clock::now() > deadline) return false;
    open = read_more();
  }
}

int TerminalProgram::wait_end(std::string_view key) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    const bool open = read_more();
    if (open && !key.empty()) type(key);
    int ended = 0;
    if (::waitpid(pid_, &ended, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
    }
    if (!open) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return -1;
}

}  // namespace mneme
