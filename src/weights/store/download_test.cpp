#include "weights/store/download.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "weights/store/http_client.h"
#include "weights/store/sha256.h"
#include "weights/store/test_server.h"

namespace mneme {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

std::string bytes_of_length(size_t size) {
  std::string text(size, 0);
  uint32_t state = 12345;
  for (char& c : text) c = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
  return text;
}

std::string sha256_of(const std::string& text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text.data(), text.size())));
  return hash.hex();
}

TEST(Sha256, KnownDigests) {
  EXPECT_EQ(sha256_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hash;
  const std::string piece = "abc";
  hash.update(std::as_bytes(std::span(piece.data(), 1)));
  EXPECT_EQ(hash.hex(), sha256_of("a"));
  hash.update(std::as_bytes(std::span(piece.data() + 1, 2)));
  EXPECT_EQ(hash.hex(), sha256_of("abc"));
  hash.reset();
  EXPECT_EQ(hash.hex(), sha256_of(""));
  EXPECT_TRUE(is_sha256_hex(sha256_of("")));
  EXPECT_FALSE(is_sha256_hex("abc"));
  EXPECT_FALSE(is_sha256_hex(std::string(64, 'g')));
}

class DownloadTest : public FolderTest {
 protected:
  DownloadTest() {
    options_.first_wait = std::chrono::milliseconds(1);
    file_.content = bytes_of_length(300'001);
    file_.etag = "\"one\"";
    server_.serve("/file", file_);
  }

  DownloadRequest request() const {
    DownloadRequest wanted;
    wanted.url = server_.url("/file");
    wanted.path = path("model.gguf");
    return wanted;
  }
  DownloadResult fetch() { return download_file(request(), options_); }
  std::string error_of(const DownloadRequest& wanted, ErrorCode code = ErrorCode::kIo) {
    try {
      download_file(wanted, options_);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      return std::string(e.what()) + " | " + e.hint();
    }
    return "no error";
  }
  std::string stored() const { return read_text_file(path("model.gguf")); }
  size_t n_files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  /// Leaves a download that broke off after `bytes`.
  void break_off(size_t bytes) {
    file_.cut_after = bytes;
    options_.retries = 0;
    EXPECT_THAT(error_of(request()), HasSubstr("run it again"));
    EXPECT_EQ(fs::file_size(path("model.gguf.part")), bytes);
    EXPECT_FALSE(fs::exists(path("model.gguf")));
    file_.cut_after = SIZE_MAX;
  }

  ServedFile file_;
  TestServer server_;
  DownloadOptions options_;
};

TEST_F(DownloadTest, WholeFile) {
  uint64_t last = 0;
  options_.on_progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GE(done, last);
    EXPECT_EQ(total, file_.content.size());
    last = done;
  };
  const DownloadResult result = fetch();
  EXPECT_EQ(stored(), file_.content);
  EXPECT_EQ(result.bytes, file_.content.size());
  EXPECT_EQ(result.sha256, sha256_of(file_.content));
  EXPECT_EQ(result.etag, "\"one\"");
  EXPECT_EQ(result.resumed_from, 0u);
  EXPECT_FALSE(result.verified);
  EXPECT_EQ(last, file_.content.size());
  EXPECT_EQ(n_files(), 1u);
}

TEST_F(DownloadTest, EmptyFileAndFolderThatIsMissing) {
  file_.content.clear();
  DownloadRequest wanted = request();
  wanted.path = path("a/b/c.gguf");
  EXPECT_EQ(download_file(wanted, options_).bytes, 0u);
  EXPECT_EQ(fs::file_size(path("a/b/c.gguf")), 0u);
}

TEST_F(DownloadTest, GoesOnAfterACutInTheSameRun) {
  file_.cut_after = 100'000;
  const DownloadResult result = fetch();
  EXPECT_EQ(stored(), file_.content);
  EXPECT_EQ(result.sha256, sha256_of(file_.content));
  EXPECT_THAT(server_.ranges(), testing::ElementsAre("", "bytes=100000-", "bytes=200000-", "bytes=300000-"));
}

TEST_F(DownloadTest, GoesOnWhereAnEarlierRunEnded) {
  break_off(123'456);
  const DownloadResult result = fetch();
  EXPECT_EQ(result.resumed_from, 123'456u);
  EXPECT_EQ(stored(), file_.content);
  EXPECT_EQ(result.sha256, sha256_of(file_.content));
  EXPECT_EQ(server_.ranges().back(), "bytes=123456-");
  EXPECT_EQ(n_files(), 1u);
}

TEST_F(DownloadTest, LastModifiedStandsInForAnEtag) {
  file_.etag.clear();
  file_.last_modified = "Tue, 05 Mar 2024 10:00:00 GMT";
  break_off(1000);
  EXPECT_EQ(fetch().resumed_from, 1000u);
  EXPECT_EQ(stored(), file_.content);
}

TEST_F(DownloadTest, WithoutAValidatorItBeginsAnew) {
  file_.etag = "W/\"weak\"";
  file_.cut_after = 1000;
  options_.retries = 0;
  EXPECT_THAT(error_of(request()), HasSubstr("attempts"));
  file_.cut_after = SIZE_MAX;
  EXPECT_EQ(fetch().resumed_from, 0u);
  EXPECT_EQ(stored(), file_.content);
  EXPECT_EQ(server_.ranges().back(), "");
}

TEST_F(DownloadTest, ChangedEtagBeginsAnew) {
  break_off(1000);
  file_.content = bytes_of_length(200'000) + "changed";
  file_.etag = "\"two\"";
  const DownloadResult result = fetch();
  EXPECT_EQ(result.resumed_from, 0u);
  EXPECT_EQ(stored(), file_.content);
  EXPECT_EQ(result.etag, "\"two\"");
}

TEST_F(DownloadTest, RangeOfAnotherFileIsNotAppended) {
  break_off(1000);
  options_.retries = 2;
  file_.content = std::string(300'001, 'z');
  file_.etag = "\"two\"";
  file_.ignores_if_range = true;
  EXPECT_EQ(fetch().resumed_from, 0u);
  EXPECT_EQ(stored(), file_.content);
}

TEST_F(DownloadTest, ServerWithoutRangesBeginsAnew) {
  break_off(1000);
  file_.knows_ranges = false;
  EXPECT_EQ(fetch().resumed_from, 0u);
  EXPECT_EQ(stored(), file_.content);
}

TEST_F(DownloadTest, PartOfAnotherUrlIsNotUsed) {
  break_off(1000);
  ServedFile other;
  other.content = "other";
  other.etag = file_.etag;
  server_.serve("/other", other);
  DownloadRequest wanted = request();
  wanted.url = server_.url("/other");
  download_file(wanted, options_);
  EXPECT_EQ(stored(), "other");
}

TEST_F(DownloadTest, DamagedStateBeginsAnew) {
  break_off(1000);
  AtomicFile state(path("model.gguf.part.json"));
  state.write("{\"url\": 5");
  state.commit();
  EXPECT_EQ(fetch().resumed_from, 0u);
  EXPECT_EQ(stored(), file_.content);
}

TEST_F(DownloadTest, CompletePartIsOnlyFinished) {
  break_off(300'000);
  AtomicFile part(path("model.gguf.part"));
  part.write(file_.content);
  part.commit();
  const size_t before = server_.n_requests();
  EXPECT_EQ(fetch().resumed_from, file_.content.size());
  EXPECT_EQ(server_.n_requests(), before);
  EXPECT_EQ(stored(), file_.content);
}

TEST_F(DownloadTest, DigestIsCheckedAgainstTheCallersAndTheServers) {
  DownloadRequest wanted = request();
  wanted.sha256 = sha256_of(file_.content);
  EXPECT_TRUE(download_file(wanted, options_).verified);
  file_.sha256_header = sha256_of(file_.content);
  EXPECT_TRUE(fetch().verified);
  file_.sha256_header.clear();
  file_.etag = "\"" + sha256_of(file_.content) + "\"";
  EXPECT_TRUE(fetch().verified);
}

TEST_F(DownloadTest, WrongDigestThrowsTheBytesAway) {
  DownloadRequest wanted = request();
  wanted.sha256 = std::string(64, '0');
  EXPECT_THAT(error_of(wanted, ErrorCode::kCorruptData), HasSubstr("expected SHA-256 0000"));
  EXPECT_EQ(n_files(), 0u);
  wanted.sha256.clear();
  file_.sha256_header = std::string(64, 'a');
  EXPECT_THAT(error_of(wanted, ErrorCode::kCorruptData), HasSubstr(sha256_of(file_.content)));
  EXPECT_EQ(n_files(), 0u);
  wanted.sha256 = "12";
  EXPECT_THAT(error_of(wanted, ErrorCode::kInvalidArgument), HasSubstr("64 hexadecimal digits"));
}

TEST_F(DownloadTest, DamagedPartIsFoundByItsDigest) {
  file_.sha256_header = sha256_of(file_.content);
  break_off(1000);
  AtomicFile part(path("model.gguf.part"));
  part.write(std::string(1000, 'x'));
  part.commit();
  EXPECT_THAT(error_of(request(), ErrorCode::kCorruptData), HasSubstr("thrown away"));
  EXPECT_TRUE(fetch().verified);
  EXPECT_EQ(stored(), file_.content);
}

TEST_F(DownloadTest, WrongSizeIsRefused) {
  DownloadRequest wanted = request();
  wanted.bytes = 5;
  EXPECT_THAT(error_of(wanted, ErrorCode::kCorruptData), HasSubstr("expected 5 bytes, the server has 300001"));
}

TEST_F(DownloadTest, MissingAndRefusedFilesAreNotTriedAgain) {
  DownloadRequest wanted = request();
  wanted.url = server_.url("/missing");
  EXPECT_THAT(error_of(wanted, ErrorCode::kNotFound), HasSubstr("not found (HTTP 404)"));
  file_.refusals = 10;
  file_.refusal_status = 401;
  EXPECT_THAT(error_of(request()), HasSubstr("HF_TOKEN"));
  EXPECT_EQ(server_.n_requests(), 1u);
  EXPECT_FALSE(fs::exists(path("model.gguf")));
}

TEST_F(DownloadTest, OverloadedServersAreTriedAgainButNotForEver) {
  file_.refusals = 3;
  EXPECT_EQ(fetch().bytes, file_.content.size());
  EXPECT_EQ(server_.n_requests(), 4u);
  file_.refusals = 100;
  options_.retries = 2;
  EXPECT_THAT(error_of(request()), HasSubstr("HTTP 503 (3 attempts)"));
  EXPECT_EQ(server_.n_requests(), 7u);
}

TEST_F(DownloadTest, RedirectsAreFollowedAndTheTokenStaysHome) {
  TestServer elsewhere;
  elsewhere.serve("/blob", file_);
  server_.routes().Get("/moved", [&](const httplib::Request&, httplib::Response& response) {
    response.set_header("X-Linked-Etag", "\"" + sha256_of(file_.content) + "\"");
    response.set_redirect(elsewhere.url("/blob"));
  });
  DownloadRequest wanted = request();
  wanted.url = server_.url("/moved");
  wanted.bearer_token = "secret";
  const DownloadResult result = download_file(wanted, options_);
  EXPECT_TRUE(result.verified);  // By the first answer, although the second names another tag.
  EXPECT_EQ(stored(), file_.content);
  EXPECT_THAT(elsewhere.authorizations(), testing::ElementsAre(""));
  wanted.url = server_.url("/file");
  download_file(wanted, options_);
  EXPECT_THAT(server_.authorizations(), testing::ElementsAre("Bearer secret"));
}

TEST_F(DownloadTest, RedirectsInACircleEnd) {
  server_.routes().Get("/circle", [&](const httplib::Request&, httplib::Response& response) {
    response.set_redirect(server_.url("/circle"));
  });
  DownloadRequest wanted = request();
  wanted.url = server_.url("/circle");
  EXPECT_THAT(error_of(wanted), HasSubstr("redirects"));
}

TEST_F(DownloadTest, OtherProtocolsAreRefused) {
  DownloadRequest wanted = request();
  wanted.url = "file:///etc/passwd";
  EXPECT_THAT(error_of(wanted, ErrorCode::kInvalidArgument), HasSubstr("http"));
  server_.routes().Get("/to-file", [&](const httplib::Request&, httplib::Response& response) {
    response.set_redirect("file:///etc/passwd");
  });
  wanted.url = server_.url("/to-file");
  EXPECT_THAT(error_of(wanted, ErrorCode::kInvalidArgument), HasSubstr("rotocol"));
}

TEST_F(DownloadTest, ClosedPortIsTriedAgainAndNamed) {
  std::string closed;
  { closed = TestServer().url("/file"); }
  DownloadRequest wanted = request();
  wanted.url = closed;
  options_.retries = 1;
  EXPECT_THAT(error_of(wanted), HasSubstr("(2 attempts)"));
}

TEST_F(DownloadTest, FullDiskIsRefusedBeforeTheTransferWithNumbers) {
  options_.free_bytes = [&](const std::string& folder) {
    EXPECT_EQ(folder, folder_.string());
    return uint64_t{300'000};
  };
  options_.spare_bytes = 0;
  EXPECT_THAT(error_of(request()),
              testing::AllOf(HasSubstr("300001 more bytes"), HasSubstr("has 300000"), HasSubstr("MNEME_MODELS")));
  EXPECT_EQ(fs::file_size(path("model.gguf.part")), 0u);
  options_.free_bytes = [](const std::string&) { return uint64_t{300'001}; };
  EXPECT_EQ(fetch().bytes, 300'001u);
  options_.spare_bytes = UINT64_MAX;
  EXPECT_THAT(error_of(request()), HasSubstr("do not fit"));
  EXPECT_GT(free_disk_bytes(folder_.string()), 0u);
  EXPECT_THROW(free_disk_bytes(path("no/such")), Error);
}

TEST_F(DownloadTest, UnchangedFileIsNotSentAgain) {
  DownloadRequest wanted = request();
  wanted.known_etag = fetch().etag;
  EXPECT_TRUE(download_file(wanted, options_).not_modified);
  EXPECT_EQ(n_files(), 1u);
  file_.content = "new";
  file_.etag = "\"new\"";
  EXPECT_FALSE(download_file(wanted, options_).not_modified);
  EXPECT_EQ(stored(), "new");
}

TEST_F(DownloadTest, TwoProcessesDoNotShareAPart) {
  const int other = ::open(path("model.gguf.part").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  EXPECT_THAT(error_of(request()), HasSubstr("another process"));
  ::close(other);
  EXPECT_EQ(fetch().bytes, file_.content.size());
}

TEST(HttpClient, TextAnswersAreBounded) {
  TestServer server;
  ServedFile file;
  file.content = std::string(1000, 'x');
  server.serve("/text", file);
  HttpClient client;
  std::string body;
  EXPECT_EQ(client.get_text(server.url("/text"), {}, 1000, body).status, 200);
  EXPECT_EQ(body, file.content);
  EXPECT_THROW(client.get_text(server.url("/text"), {}, 999, body), Error);
  EXPECT_THROW(client.get_text("http://bad host/", {}, 10, body), Error);
  EXPECT_THROW(client.get_text("ftp://127.0.0.1/x", {}, 10, body), Error);
  EXPECT_EQ(parse_decimal("123"), 123u);
  EXPECT_EQ(parse_decimal("18446744073709551616"), std::nullopt);
  EXPECT_EQ(parse_decimal("-1"), std::nullopt);
  EXPECT_EQ(parse_decimal(""), std::nullopt);
}

}  // namespace
}  // namespace mneme
