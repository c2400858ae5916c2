#include "engine/session/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>

#include "base/mapped_file.h"
#include "base/philox.h"
#include "base/test_data.h"
#include "base/test_error.h"
#include "context/record_log.h"
#include "engine/chat_session.h"
#include "engine/session/session_folder.h"
#include "engine/session/session_index.h"
#include "engine/session/text_session.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kModel = source_path("models/pocket.gguf");

class SessionTest : public testing::Test {
 protected:
  static std::unique_ptr<Engine> load(Ledger& ledger, const std::string& kv = "f16", uint64_t context = 2048) {
    PlanRequest request;
    request.context = context;
    request.batch = 128;
    request.kv = KvPolicy::parse(kv);
    return Engine::load(kModel, request, ledger);
  }

  /// About n tokens of text.
  static std::string text(size_t n) {
    std::string out = "Once upon a time";
    for (size_t i = 0; i < n; ++i) out += i % 7 == 0 ? " and then" : i % 3 == 0 ? " the dog" : " saw";
    return out;
  }

  static GenerationRequest request(uint32_t n) {
    GenerationRequest out;
    out.max_tokens = n;
    out.sampling.temperature = 0.8f;
    out.sampling.seed = 5;
    out.sampling.ignore_end_of_generation = true;
    out.n_logprobs = 2;
    return out;
  }

  /// Every byte of a state.
  static std::vector<std::string> bytes_of(const SequenceState& state) {
    class StringWriter : public StateWriter {
     public:
      void write(std::span<const std::byte> bytes) override {
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      }
      std::string text;
    };
    std::vector<std::string> out;
    for (size_t i = 0; i < state.n_layers(); ++i) {
      StringWriter writer;
      for (int64_t page = 0; page < state.layer(i)->sealed_pages().end; ++page) state.layer(i)->save_page(page, writer);
      EXPECT_TRUE(state.layer(i)->save_rest(state.n_tokens(), writer));
      out.push_back(writer.text);
    }
    return out;
  }

  static std::string content(const std::string& path) {
    const MappedFile file(path);
    return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
  }

  std::string path() const { return folder_.file("a.session"); }

  Ledger ledger_;
  TestFolder folder_;
};

// Saved and brought back by another engine after each piece: the same tokens with the same log-probabilities, to the
// bit, and the same state as without any stop.
TEST_F(SessionTest, ResumingEqualsNeverStopping) {
  const auto straight = load(ledger_);
  SessionRecorder whole(*straight, folder_.file("whole.session"));
  GenerationResult want = continue_text(*straight, whole, text(300), request(120));
  ASSERT_GT(want.n_prompt, 256u);

  std::vector<GeneratedToken> got;
  uint32_t n_reused = 0;
  for (const uint32_t n : {1, 30, 70, 19}) {
    Ledger ledger;
    const auto engine = load(ledger);
    SessionRecorder recorder(*engine, path());
    EXPECT_EQ(recorder.take_trouble(), "");
    EXPECT_EQ(recorder.tokens().size(), got.empty() ? 0 : want.n_prompt + got.size());
    const GenerationResult piece = continue_text(*engine, recorder, got.empty() ? text(300) : "", request(n));
    if (!got.empty()) {
      EXPECT_EQ(piece.n_reused, piece.n_prompt - 1) << "nothing but the last token is computed again";
    }
    n_reused = piece.n_reused;
    got.insert(got.end(), piece.tokens.begin(), piece.tokens.end());
    EXPECT_EQ(ledger.used(Tier::kDisk), recorder.session().bytes());
    if (got.size() == 120) {
      EXPECT_EQ(bytes_of(*recorder.conversation()->state), bytes_of(*whole.conversation()->state));
    }
  }
  EXPECT_GT(n_reused, 0u);
  ASSERT_EQ(got.size(), want.tokens.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].token, want.tokens[i].token);
    EXPECT_EQ(got[i].logprob, want.tokens[i].logprob);
    EXPECT_EQ(got[i].top[1].logprob, want.tokens[i].top[1].logprob);
  }
}

/// A session of several saves, and what is true of it: the tokens and the state's bytes after each number of tokens.
class DamagedSession : public SessionTest {
 protected:
  void SetUp() override {
    engine_ = load(ledger_, "f16", 1024);
    SessionRecorder recorder(*engine_, path());
    commits_.push_back({});
    for (const uint32_t n : {40, 200}) {
      continue_text(*engine_, recorder, commits_.size() == 1 ? text(300) : " But", request(n));
      commits_.push_back(recorder.tokens());
    }
    whole_ = content(path());
  }

  /// Reads `file` as a new process would. Never wrong: the tokens begin as they truly did, and a state is the true one.
  SessionIndex check(const std::string& file, bool* failed = nullptr) {
    SessionIndex index;
    try {
      index = SessionIndex::read(std::as_bytes(std::span(file)), "test");
      const auto state = index.load_state([&] { return engine_->make_state(); }, [](auto) {});
      const auto& all = commits_.back();
      EXPECT_LE(index.tokens.size(), all.size());
      EXPECT_TRUE(std::equal(index.tokens.begin(), index.tokens.end(), all.begin()));
      if (state) {
        if (!true_states_.contains(state->n_tokens())) {
          const auto fresh = engine_->make_state();
          engine_->run(*fresh, std::span(all).first(static_cast<size_t>(state->n_tokens())),
                       [](size_t, size_t, const float*) {});
          true_states_[state->n_tokens()] = bytes_of(*fresh);
        }
        EXPECT_EQ(bytes_of(*state), true_states_[state->n_tokens()]) << state->n_tokens();
      }
      if (failed != nullptr) *failed = false;
    } catch (const Error&) {
      if (failed != nullptr) *failed = true;
    }
    return index;
  }

  std::unique_ptr<Engine> engine_;
  std::vector<std::vector<TokenId>> commits_;
  std::map<int64_t, std::vector<std::string>> true_states_;
  std::string whole_;
};

// A write that was cut short anywhere: what was saved last before it comes back.
TEST_F(DamagedSession, CutFilesGiveTheLastCompleteState) {
  const SessionIndex whole = check(whole_);
  EXPECT_EQ(whole.tokens, commits_.back());
  EXPECT_EQ(whole.n_state, static_cast<int64_t>(commits_.back().size()) - 1);
  PhiloxStream random(3);
  size_t before = 0;
  std::vector<size_t> cuts;
  for (int i = 0; i < 60; ++i) cuts.push_back(random.next_u32() % whole_.size());
  std::sort(cuts.begin(), cuts.end());
  for (const size_t cut : cuts) {
    const SessionIndex index = check(whole_.substr(0, cut));
    EXPECT_FALSE(index.damaged);
    EXPECT_GE(index.tokens.size(), before);
    before = index.tokens.size();
  }
  EXPECT_GE(before, commits_[1].size());
}

// One changed byte anywhere is noticed, costs at most what depends on it, and never gives wrong tokens or a wrong
// state.
TEST_F(DamagedSession, FlippedBytesAreNoticed) {
  PhiloxStream random(4);
  size_t n_whole = 0;
  for (int i = 0; i < 150; ++i) {
    std::string flipped = whole_;
    const size_t at = random.next_u32() % whole_.size();
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << random.next_u32() % 8));
    bool failed = false;
    const SessionIndex index = check(flipped, &failed);
    const bool uses_it = failed || index.damaged || index.tokens != commits_.back();
    // A block that nothing needs any more (an older rest) may be hit without harm; verifying finds it all the same.
    n_whole += uses_it ? 0 : 1;
    std::ofstream(folder_.file("flip.session"), std::ios::binary) << flipped;
    if (at < whole_.size() - 4096) {
      EXPECT_NE(SessionFolder(folder_.path().string()).summary("flip", true).problem, "") << "byte " << at;
    }
  }
  EXPECT_LT(n_whole, 75u);
}

TEST_F(DamagedSession, ADamagedFileIsKeptAsideAndTheRestIsComputedAgain) {
  const SessionIndex index = check(whole_);
  std::string flipped = whole_;
  const auto chain_page =
      std::find_if(index.pages.begin(), index.pages.end(), [](const auto& p) { return p.first.position == 1; });
  ASSERT_NE(chain_page, index.pages.end());
  const size_t at =
      static_cast<size_t>(reinterpret_cast<const char*>(chain_page->second.bytes.data()) - whole_.data()) + 1000;
  flipped[at] = static_cast<char>(~flipped[at]);
  std::ofstream(path(), std::ios::binary) << flipped;
  SessionRecorder recorder(*engine_, path());
  EXPECT_THAT(recorder.take_trouble(),
              HasSubstr("is damaged: 256 of " + std::to_string(commits_.back().size()) + " tokens"));
  const GenerationResult result = continue_text(*engine_, recorder, "", request(5));
  EXPECT_EQ(result.n_reused, 256u);
  EXPECT_EQ(recorder.take_trouble(), "");
  EXPECT_EQ(content(path() + ".damaged"), flipped);
  EXPECT_EQ(SessionFolder(folder_.path().string()).summary("a", true).problem, "");
  EXPECT_THAT(error_of([&] { SessionRecorder(*engine_, path()); }), HasSubstr("in use by another process"));
}

// What changes in the middle (an edited question) costs what comes behind it, and the file does not grow without bound.
TEST_F(SessionTest, EditsAndManySavesKeepTheFileSmall) {
  const auto engine = load(ledger_);
  Session session(path(), {"pocket", "0", "f16", 6}, ledger_);
  (void)session.load([&] { return engine->make_state(); });
  const auto run = [&](std::span<const TokenId> tokens) {
    auto state = engine->make_state();
    engine->run(*state, tokens, [](size_t, size_t, const float*) {});
    return state;
  };
  std::vector<TokenId> tokens = engine->tokenizer().encode(text(600));
  tokens.resize(700);
  const auto first = run(tokens);
  for (int i = 0; i < 20; ++i) {
    tokens[600] = 300 + i;
    const auto state = run(tokens);
    ASSERT_TRUE(session.save({state.get(), tokens, Json::object()}, SaveDepth::kComplete)) << session.trouble();
    EXPECT_LE(session.bytes(), 2 * first->bytes() + (5u << 20));
    if (i % 6 != 0) continue;
    const MappedFile file(path());
    SessionIndex index = SessionIndex::read(file.bytes(), "test");
    const auto loaded = index.load_state([&] { return engine->make_state(); }, [](auto) {});
    ASSERT_TRUE(loaded);
    EXPECT_EQ(index.tokens, tokens);
    EXPECT_EQ(bytes_of(*loaded), bytes_of(*state));
  }
}

// The disk is full, or the disk tier's budget too small: saving says so, loses nothing that was saved, and goes on when
// there is room again.
TEST_F(SessionTest, AFullDiskLosesNothingThatWasSaved) {
  const auto engine = load(ledger_);
  SessionRecorder recorder(*engine, path());
  continue_text(*engine, recorder, text(100), request(4));
  ASSERT_EQ(recorder.take_trouble(), "");
  const auto saved = recorder.tokens();
  const std::string file = content(path());

  ledger_.set_limit(Tier::kDisk, file.size() + 10000);
  continue_text(*engine, recorder, text(400), request(4));
  EXPECT_THAT(recorder.take_trouble(), HasSubstr("not saved: [reserve kv] session needs"));
  EXPECT_EQ(content(path()), file);
  ledger_.set_limit(Tier::kDisk, Ledger::kUnlimited);

  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit full{file.size() + 100000, limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &full);
  continue_text(*engine, recorder, "", request(4));
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, before);
  EXPECT_THAT(recorder.take_trouble(), HasSubstr("File too large"));
  EXPECT_EQ(content(path()), file);

  continue_text(*engine, recorder, "", request(4));
  EXPECT_EQ(recorder.take_trouble(), "");
  const MappedFile now(path());
  EXPECT_EQ(SessionIndex::read(now.bytes(), "test").tokens, recorder.tokens());
  EXPECT_GT(recorder.tokens().size(), saved.size() + 400);
}

TEST_F(SessionTest, RefusesWhatIsNotItsOwn) {
  const auto engine = load(ledger_);
  {
    SessionRecorder recorder(*engine, path());
    continue_text(*engine, recorder, text(300), request(2));
  }
  Ledger other;
  const auto wider = load(other, "f32");
  EXPECT_THAT(error_of([&] { SessionRecorder(*wider, path()); }),
              HasSubstr("expected keys and values as f32, found f16"));
  const auto shorter = load(other, "f16", 256);
  EXPECT_THAT(error_of([&] { SessionRecorder(*shorter, path()); }), HasSubstr("at most 256 tokens of context"));
  Session elsewhere(path(), {"other.gguf", "0123", "f16", 6}, other);
  EXPECT_THAT(error_of([&] { elsewhere.load([&] { return engine->make_state(); }); }),
              HasSubstr("expected a session of other.gguf, found one of pocket.gguf"));
  folder_.write("b.session", "no session at all, but a text that is long enough to have a head");
  EXPECT_THAT(error_of([&] { SessionRecorder(*engine, folder_.file("b.session")); }),
              HasSubstr("expected a session's identity"));
  SessionRecorder nowhere(*engine, folder_.file("missing/c.session"));
  EXPECT_THAT(nowhere.take_trouble(), HasSubstr("nothing will be saved"));
  EXPECT_EQ(continue_text(*engine, nowhere, "Once", request(3)).tokens.size(), 3u) << "works all the same";
  const SessionFolder folder(folder_.path().string());
  for (const char* name : {"", ".", "../a", "a/b", "a b"}) EXPECT_THROW(folder.file_of(name), Error) << name;
}

TEST_F(SessionTest, StatesOfAnotherVersionAreRefused) {
  const std::string old = folder_.file("old.session");
  const std::string identity = R"({"format":1,"model":"pocket.gguf","fingerprint":"0123","kv":"f16","layers":6})";
  RecordLog log(old);
  log.append(static_cast<uint32_t>(SessionRecord::kIdentity),
             [&](StateWriter& out) { out.write(std::as_bytes(std::span(identity))); });
  log.flush();
  const MappedFile file(old);
  EXPECT_THAT(error_of([&] { SessionIndex::read(file.bytes(), old); }),
              AllOf(HasSubstr("old.session"), HasSubstr("expected states of layout 2, found 1")));
}

TEST_F(SessionTest, AChatGoesOnWhereItWas) {
  const auto chat_template = [] {
    return ChatTemplate::from_source("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:", "",
                                     "");
  };
  const auto engine = load(ledger_);
  ChatSession straight(*engine, chat_template());
  straight.set_system("be kind");
  straight.ask("Who is Lily?", request(40));
  straight.ask("Really?", request(40));
  straight.undo();
  const GenerationResult want = straight.ask("And Tom?", request(20));
  {
    SessionRecorder recorder(*engine, path());
    ChatSession chat(*engine, chat_template());
    chat.keep_in(recorder);
    chat.set_system("be kind");
    chat.ask("Who is Lily?", request(40));
    chat.ask("Really?", request(40));
    EXPECT_THROW(chat.ask(std::string(40000, 'x'), request(10)), Error);
    chat.undo();
  }
  SessionRecorder recorder(*engine, path());
  ChatSession chat(*engine, chat_template());
  chat.keep_in(recorder);
  const GenerationResult got = chat.ask("And Tom?", request(20));
  EXPECT_EQ(got.text, want.text);
  EXPECT_EQ(chat.messages(), straight.messages());
  EXPECT_GT(got.n_reused, 40u);
  EXPECT_THAT(error_of([&] { continue_text(*engine, recorder, "x", request(1)); }), HasSubstr("leave out --raw"));
}

}  // namespace
}  // namespace mneme
