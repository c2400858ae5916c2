#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/test_sanitizer.h"

namespace mneme {

/// MiB in which small models run, more for programs with a sanitizer, and how --memory takes them.
constexpr uint64_t kSmallMemoryMiB = kAddressSanitizer || kThreadSanitizer ? 192 : 64;
inline const std::string kSmallMemory = std::to_string(kSmallMemoryMiB) + "M";

/// The program under test: $MNEME_BINARY, or the one of this build.
std::string program_path();

/// How a process ended and what it wrote.
struct Outcome {
  int status = -1;  ///< Exit status; -1 when a signal ended it.
  int signal = 0;   ///< The signal that ended it, or 0.
  std::string out, err;
  uint64_t peak_bytes =
      0;  ///< Largest resident size, but never below that of the test program when it started the process.

  bool ok() const { return status == 0; }
  /// The only line on stderr without its "error: ", or "" when the process did not fail with exactly one such line.
  std::string error() const;
  /// stdout as one JSON document.
  Json json() const { return parse_json(out, "stdout of the program"); }
};

struct ProcessOptions {
  std::string input;                                             ///< Standard input; it is a file, not a terminal.
  std::vector<std::pair<std::string, std::string>> environment;  ///< Added to that of the test.
};

/// Runs a program to its end.
Outcome run_program(const std::string& program, const std::vector<std::string>& arguments,
                    const ProcessOptions& options = {});

/// Runs mneme on one thread, so that a busy machine does not make tests slow.
Outcome mneme_run(std::vector<std::string> arguments, const ProcessOptions& options = {});

std::string read_file(const std::string& path);
/// 32-bit floats of a file.
std::vector<float> read_floats(const std::string& path);

/// mneme in a pseudo-terminal of its own. The terminal shows stdout, stderr and the echo of what is typed.
class TerminalProgram {
 public:
  explicit TerminalProgram(const std::vector<std::string>& arguments);
  TerminalProgram(const TerminalProgram&) = delete;
  TerminalProgram& operator=(const TerminalProgram&) = delete;
  ~TerminalProgram();

  /// Types text as a person would; "\n" is Enter, "\x03" Ctrl-C.
  void type(std::string_view text);
  /// Waits until `text` has appeared after what earlier calls found. False when the program ended or a minute passed.
  bool wait_for(std::string_view text);
  /// Waits for the end, typing `key` again and again when given. Exit status, or -1 for a signal or after a minute.
  int wait_end(std::string_view key = {});
  /// Everything that the terminal showed so far.
  const std::string& screen() const { return screen_; }

 private:
  bool read_more();

  pid_t pid_ = -1;
  int terminal_ = -1;
  std::string screen_;
  size_t seen_ = 0;
};

}  // namespace mneme
