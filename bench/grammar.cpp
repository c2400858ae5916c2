// Time to work out which tokens a JSON grammar allows, over the vocabulary of a GGUF file:
//   bench_grammar FILE [N_TOKENS]     (padded with longer texts to N_TOKENS, 128256 when not given)
// Random JSON documents are read token by token, and the mask before each token is timed: for documents like those seen
// before, which is what a long generation is, and the first ones of a new matcher.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "base/philox.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/token_matcher.h"
#include "engine/tokenizer_view.h"
#include "weights/model_file.h"

namespace {

using namespace mneme;
using Clock = std::chrono::steady_clock;

/// The vocabulary with pairs of its own tokens behind it, up to a size.
class PaddedVocabulary : public VocabularyView {
 public:
  PaddedVocabulary(const Tokenizer& tokenizer, size_t size) : view_(tokenizer) {
    PhiloxStream random(1);
    const auto any = [&] { return view_.piece(static_cast<TokenId>(random.next_below(view_.size()))); };
    while (view_.size() + more_.size() < size) more_.push_back(any() + any());
  }
  size_t size() const override { return view_.size() + more_.size(); }
  std::string piece(TokenId id) const override {
    const auto i = static_cast<size_t>(id);
    return i < view_.size() ? view_.piece(id) : more_[i - view_.size()];
  }
  bool is_end_of_generation(TokenId id) const override {
    return static_cast<size_t>(id) < view_.size() && view_.is_end_of_generation(id);
  }

 private:
  TokenizerView view_;
  std::vector<std::string> more_;
};

/// A document with records as programs exchange them.
Json random_json(PhiloxStream& random, int depth) {
  static const char* kWords[] = {"The", "quick", "brown", "Füchse", "jumped", "over",
                                 "42",  "lazy",  "dogs;", "日本語", "naïve",  "end."};
  switch (random.next_below(depth > 0 ? 8 : 5)) {
    case 0:
      return random.next_below(100000);
    case 1:
      return std::round(random.next_double() * 1e6) / 1e3;
    case 2:
      return random.next_below(2) == 0;
    case 3:
    case 4: {
      std::string text;
      for (uint64_t n = 1 + random.next_below(12); n > 0; --n)
        text += std::string(kWords[random.next_below(std::size(kWords))]) + " ";
      return text;
    }
    case 5: {
      Json list = Json::array();
      for (uint64_t n = random.next_below(5); n > 0; --n) list.push_back(random_json(random, depth - 1));
      return list;
    }
    default: {
      Json object = Json::object();
      for (uint64_t n = 1 + random.next_below(5); n > 0; --n) {
        object[fmt::format("{}_{}", kWords[random.next_below(std::size(kWords))], n)] = random_json(random, depth - 1);
      }
      return object;
    }
  }
}

Json record(PhiloxStream& random) {
  Json out = Json::object();
  for (const char* name : {"name", "tags", "body"}) out[name] = random_json(random, 4);
  return out;
}

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// Milliseconds of each mask.
struct Times {
  std::vector<double> known;       ///< looked up
  std::vector<double> worked_out;  ///< of a state that was not met before

  void print(const char* what) const {
    fmt::print("  {:<8}", what);
    print_part("worked out", worked_out);
    print_part("known", known);
    std::vector<double> all = known;
    all.insert(all.end(), worked_out.begin(), worked_out.end());
    print_part("all", all);
    fmt::print("\n");
  }

 private:
  static void print_part(const char* what, std::vector<double> times) {
    if (times.empty()) return;
    std::sort(times.begin(), times.end());
    const auto at = [&](double part) {
      return times[static_cast<size_t>(part * static_cast<double>(times.size() - 1))];
    };
    fmt::print("  {} {}: median {:.4f}, 99 % {:.3f}, most {:.2f} ms;", times.size(), what, at(0.5), at(0.99), at(1));
  }
};

/// Reads `n` documents token by token.
Times read_documents(const std::shared_ptr<TokenMatcher>& matcher, const Tokenizer& tokenizer, PhiloxStream& random,
                     int n) {
  Times times;
  for (int i = 0; i < n; ++i) {
    const std::string text = record(random).dump(i % 2 == 0 ? -1 : 2);
    TokenMatcher::Handle at = matcher->start();
    for (const TokenId id : tokenizer.encode(text, {.add_special = false, .parse_special = false})) {
      const size_t before = matcher->bytes();
      const auto begin = Clock::now();
      const auto mask = matcher->mask(at);
      const double time = milliseconds_since(begin);
      (matcher->bytes() == before ? times.known : times.worked_out).push_back(time);
      if (!mask->allows(id)) {
        fmt::print(stderr, "the grammar refuses '{}' in {}\n", tokenizer.piece(id), text);
        std::exit(1);
      }
      at = matcher->advance(at, tokenizer.piece(id));
    }
  }
  return times;
}

void measure(const char* name, const std::string& gbnf, const std::shared_ptr<const VocabularyTrie>& trie,
             const Tokenizer& tokenizer, Ledger& ledger) {
  auto begin = Clock::now();
  auto grammar = std::make_shared<const Grammar>(gbnf);
  const double compile = milliseconds_since(begin);
  const auto matcher = TokenMatcher::create(std::move(grammar), trie, ledger);
  PhiloxStream random(2);
  fmt::print("{}: compiled in {:.2f} ms\n", name, compile);
  read_documents(matcher, tokenizer, random, 1).print("first");
  read_documents(matcher, tokenizer, random, 20).print("warm-up");
  read_documents(matcher, tokenizer, random, 100).print("warm");
  fmt::print("  matcher {:.1f} MiB\n", static_cast<double>(matcher->bytes()) / (1 << 20));
}

void run(const std::string& path, size_t n_tokens) {
  Ledger ledger;
  const ModelFile file = open_model(path, ledger);
  const auto tokenizer = Tokenizer::load(file.metadata());
  const PaddedVocabulary vocabulary(*tokenizer, n_tokens);
  const auto begin = Clock::now();
  const auto trie = std::make_shared<const VocabularyTrie>(vocabulary, ledger);
  fmt::print("{} tokens, trie of {} nodes in {:.1f} MiB, built in {:.0f} ms\n", vocabulary.size(), trie->n_nodes(),
             static_cast<double>(trie->bytes()) / (1 << 20), milliseconds_since(begin));
  measure("any JSON", json_value_gbnf(), trie, *tokenizer, ledger);
  const Json schema = {{"type", "object"},
                       {"properties", {{"name", Json::object()}, {"tags", Json::object()}, {"body", Json::object()}}},
                       {"required", {"name", "tags", "body"}}};
  measure("an object of a schema", json_schema_gbnf(schema), trie, *tokenizer, ledger);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "expected: bench_grammar FILE [N_TOKENS]\n");
    return 2;
  }
  try {
    run(argv[1], argc == 3 ? std::strtoul(argv[2], nullptr, 10) : 128256);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
  return 0;
}
