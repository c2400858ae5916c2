#include "recall/sql/postgres_server.h"

#include <fcntl.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/error.h"

namespace mneme::recall {
namespace {

/// Folder of the newest installed server's programs, or "".
std::string programs() {
  std::string newest;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", error)) {
    const std::string bin = (entry.path() / "bin").string();
    if (std::filesystem::exists(bin + "/initdb") && std::filesystem::exists(bin + "/postgres")) {
      newest = std::max(newest, bin);
    }
  }
  return newest;
}

void run_sql(const std::string& url, const std::string& sql) {
  const std::unique_ptr<PGconn, void (*)(PGconn*)> connection(PQconnectdb(url.c_str()), PQfinish);
  const std::unique_ptr<PGresult, void (*)(PGresult*)> result(PQexec(connection.get(), sql.c_str()), PQclear);
  if (PQresultStatus(result.get()) != PGRES_COMMAND_OK) {
    fail(ErrorCode::kIo, "[test server] {}", PQerrorMessage(connection.get()));
  }
}

}  // namespace

bool PostgresServer::is_installed() { return !programs().empty(); }

PostgresServer& PostgresServer::shared() {
  static PostgresServer server;
  return server;
}

PostgresServer::PostgresServer() {
  std::string name = "/tmp/mneme-pg-XXXXXX";  // short: the socket's path has at most 107 bytes
  if (mkdtemp(name.data()) == nullptr) fail_errno("test server", name);
  folder_ = name;
  if (geteuid() == 0) {
    // The server refuses to run as root.
    const passwd* const nobody = getpwnam("nobody");
    if (nobody == nullptr || chown(name.c_str(), nobody->pw_uid, nobody->pw_gid) != 0) fail_errno("test server", name);
  }
  int status = 0;
  waitpid(spawn("initdb", {"-D", folder_ + "/data", "-U", "admin", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"}),
          &status, 0);
  if (status != 0) fail(ErrorCode::kIo, "[test server] initdb ended with status {}", status);
  start();
  run_sql("postgresql:///postgres?host=" + folder_ + "&user=admin", "CREATE ROLE mneme LOGIN");
}

PostgresServer::~PostgresServer() {
  stop();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

pid_t PostgresServer::spawn(const std::string& program, const std::vector<std::string>& arguments) const {
  const std::string path = programs() + "/" + program;
  std::vector<char*> argv = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const passwd* const nobody = geteuid() == 0 ? getpwnam("nobody") : nullptr;
  const pid_t child = fork();
  if (child < 0) fail_errno("test server", path);
  if (child > 0) return child;
  const int quiet = open("/dev/null", O_RDWR);
  dup2(quiet, 0);
  dup2(quiet, 1);
  dup2(quiet, 2);
  if (nobody != nullptr && (setgid(nobody->pw_gid) != 0 || setuid(nobody->pw_uid) != 0)) _exit(126);
  if (chdir(folder_.c_str()) != 0) _exit(126);
  execv(path.c_str(), argv.data());
  _exit(127);
}

void PostgresServer::start() {
  server_ = spawn("postgres", {"-D", folder_ + "/data", "-k", folder_, "-c", "listen_addresses=", "-c", "fsync=off", "-c",
                               "shared_buffers=16MB", "-c", "max_connections=20"});
  for (int attempt = 0; attempt < 600; ++attempt) {
    if (PQping(("postgresql:///postgres?host=" + folder_ + "&user=admin").c_str()) == PQPING_OK) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  fail(ErrorCode::kIo, "[test server] expected it to answer within 30 s");
}

void PostgresServer::stop() {
  if (server_ < 0) return;
  kill(server_, SIGINT);  // fast shutdown
  waitpid(server_, nullptr, 0);
  server_ = -1;
}

std::string PostgresServer::new_database() {
  const std::string name = "mneme" + std::to_string(++n_databases_);
  run_sql("postgresql:///postgres?host=" + folder_ + "&user=admin", "CREATE DATABASE " + name + " OWNER mneme");
  return "postgresql:///" + name + "?host=" + folder_ + "&user=mneme";
}

}  // namespace mneme::recall
