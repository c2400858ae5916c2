#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

namespace mneme {

/// One end of a connection of bytes. Addresses are HOST:PORT, or the path of a Unix socket, which begins with '/'.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  /// Throws Error(kIo). Later calls give up after `timeout_ms` without a byte.
  static Socket connect(const std::string& address, int timeout_ms);

  /// Sends everything. Throws Error(kIo).
  void send(std::span<const std::byte> bytes);
  /// Fills `bytes`. Throws Error(kIo), also when the other end is gone.
  void receive(std::span<std::byte> bytes);
  /// The same, but false when the other end has closed the connection before the first byte.
  bool receive_or_end(std::span<std::byte> bytes);
  /// Ends the connection for both sides; calls that wait return. The one call that another thread may make.
  void shut_down();

 private:
  int descriptor_ = -1;
};

/// Takes connections. A path that is left over from a listener that is gone is used again.
class Listener {
 public:
  /// Port 0: any free one. Throws Error(kIo).
  explicit Listener(const std::string& address);
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  /// Where it listens, with the port that was free.
  const std::string& address() const { return address_; }
  /// The next connection, or an invalid one after shut_down().
  Socket accept(bool* ended);
  void shut_down();

 private:
  int descriptor_ = -1;
  std::string address_, path_;
};

}  // namespace mneme
