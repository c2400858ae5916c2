#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace mneme::recall {

/// A PostgreSQL server of a test's own, from Debian's package: an unprivileged process in a temporary folder that listens
/// on a socket in that folder and nowhere else. Not durable (fsync is off); for tests.
class PostgresServer {
 public:
  static bool is_installed();
  /// One for the whole program, started when it is first asked for.
  static PostgresServer& shared();

  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;
  ~PostgresServer();

  /// URL of a new, empty database whose owner, the URL's user, is no superuser.
  std::string new_database();
  /// Ends the server as an administrator would, breaking all connections.
  void stop();
  void start();

 private:
  PostgresServer();
  /// Runs a program of the package as an unprivileged user; returns its process.
  pid_t spawn(const std::string& program, const std::vector<std::string>& arguments) const;

  std::string folder_;
  pid_t server_ = -1;
  int n_databases_ = 0;
};

}  // namespace mneme::recall
