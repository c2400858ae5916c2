#include "base/socket.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"

namespace mneme {
namespace {

bool is_path(const std::string& address) {
  return address.starts_with('/');
}

sockaddr_un path_address(const std::string& path) {
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  if (path.size() >= sizeof out.sun_path) {
    fail(ErrorCode::kInvalidArgument, "[socket] expected a path of at most {} bytes, found {}", sizeof out.sun_path - 1,
         path);
  }
  std::memcpy(out.sun_path, path.data(), path.size());
  return out;
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

std::unique_ptr<addrinfo, FreeAddresses> resolve(const std::string& address, int flags) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    fail(ErrorCode::kInvalidArgument, "[socket] expected HOST:PORT or an absolute path, found '{}'", address);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* list = nullptr;
  const int rc = ::getaddrinfo(address.substr(0, colon).c_str(), address.substr(colon + 1).c_str(), &hints, &list);
  if (rc != 0) fail(ErrorCode::kIo, "[socket] {}: {}", address, ::gai_strerror(rc));
  return std::unique_ptr<addrinfo, FreeAddresses>(list);
}

void send_at_once(int descriptor) {
  const int on = 1;
  ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

Socket::~Socket() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Socket Socket::connect(const std::string& address, int timeout_ms) {
  int error = 0;
  Socket out;
  const auto attempt = [&](int family, const sockaddr* to, socklen_t size) {
    Socket one(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval timeout{timeout_ms / 1000, timeout_ms % 1000 * 1000};
    if (one.descriptor_ >= 0) {
      ::setsockopt(one.descriptor_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
      ::setsockopt(one.descriptor_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    }
    if (one.descriptor_ < 0 || ::connect(one.descriptor_, to, size) != 0) {
      error = errno;
      return false;
    }
    if (family != AF_UNIX) send_at_once(one.descriptor_);
    out = std::move(one);
    return true;
  };
  if (is_path(address)) {
    const sockaddr_un to = path_address(address);
    if (attempt(AF_UNIX, reinterpret_cast<const sockaddr*>(&to), sizeof to)) return out;
  } else {
    const auto list = resolve(address, 0);
    for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
      if (attempt(one->ai_family, one->ai_addr, one->ai_addrlen)) return out;
    }
  }
  fail(ErrorCode::kIo, "[connect] {}: {}", address, std::strerror(error));
}

void Socket::send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorCode::kIo, "[send] {}", std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

bool Socket::receive_or_end(std::span<std::byte> bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = ::recv(descriptor_, bytes.data() + at, bytes.size() - at, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const bool late = errno == EAGAIN || errno == EWOULDBLOCK;
      fail(ErrorCode::kIo, "[receive] {}", late ? "no answer in time" : std::strerror(errno));
    }
    if (n == 0 && at == 0) return false;
    if (n == 0) fail(ErrorCode::kIo, "[receive] expected {} bytes more, found the end", bytes.size() - at);
    at += static_cast<size_t>(n);
  }
  return true;
}

void Socket::receive(std::span<std::byte> bytes) {
  if (!receive_or_end(bytes)) fail(ErrorCode::kIo, "[receive] the other end has closed the connection");
}

void Socket::shut_down() {
  if (descriptor_ >= 0) ::shutdown(descriptor_, SHUT_RDWR);
}

Listener::Listener(const std::string& address) : address_(address) {
  const auto listen_at = [&](int family, const sockaddr* at, socklen_t size) {
    descriptor_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (family != AF_UNIX) ::setsockopt(descriptor_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const bool listens = descriptor_ >= 0 && ::bind(descriptor_, at, size) == 0 && ::listen(descriptor_, 64) == 0;
    if (listens) return;
    const int error = errno;
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
    fail(ErrorCode::kIo, "[listen] {}: {}", address, std::strerror(error));
  };
  if (is_path(address)) {
    bool alive = true;
    try {
      Socket::connect(address, 1000);
    } catch (const Error&) {
      alive = false;
    }
    if (alive) fail(ErrorCode::kIo, "[listen] {}: another process listens there", address);
    ::unlink(address.c_str());
    const sockaddr_un at = path_address(address);
    listen_at(AF_UNIX, reinterpret_cast<const sockaddr*>(&at), sizeof at);
    path_ = address;
    return;
  }
  const auto list = resolve(address, AI_PASSIVE);
  listen_at(list->ai_family, list->ai_addr, list->ai_addrlen);
  sockaddr_storage at{};
  socklen_t size = sizeof at;
  ::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&at), &size);
  const uint16_t port = at.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&at)->sin6_port
                                                 : reinterpret_cast<const sockaddr_in*>(&at)->sin_port;
  address_ = fmt::format("{}:{}", address.substr(0, address.rfind(':')), ntohs(port));
}

Listener::~Listener() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!path_.empty()) ::unlink(path_.c_str());
}

Socket Listener::accept(bool* ended) {
  for (;;) {
    const int taken = ::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC);
    *ended = taken < 0 && errno == EINVAL;  // shut down
    if (taken >= 0 && path_.empty()) send_at_once(taken);
    if (taken >= 0 || *ended) return Socket(taken);
    if (errno != EINTR && errno != ECONNABORTED) {
      fail(ErrorCode::kIo, "[accept] {}: {}", address_, std::strerror(errno));
    }
  }
}

void Listener::shut_down() {
  ::shutdown(descriptor_, SHUT_RDWR);
}

}  // namespace mneme
