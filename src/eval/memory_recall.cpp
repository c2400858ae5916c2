#include "eval/memory_recall.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>
#include <unordered_set>

#include "base/error.h"
#include "base/philox.h"
#include "eval/plain_bm25.h"
#include "recall/time_text.h"

namespace mneme {
namespace {

constexpr int kResamples = 1000;
constexpr size_t kTimedK = 10;

/// A folder that is removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "mneme-eval-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) fail_errno("eval memory", name);
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// One thing that can be found.
struct Item {
  recall::Record record;
  std::string plain;                  ///< The document of plain BM25.
  std::vector<std::string> evidence;  ///< Turns that finding it finds.
};

std::string said(const LocomoTurn& turn) {
  return turn.caption.empty() ? turn.text : turn.text + " [" + turn.caption + "]";
}

std::string user_of(const LocomoConversation& conversation, MemoryUnit unit) {
  return fmt::format("{}/{}s", conversation.id, unit_name(unit));
}

std::vector<Item> items_of(const LocomoConversation& conversation, MemoryUnit unit) {
  std::vector<Item> items;
  const auto add = [&](const LocomoSession& session, std::string text, std::string source) -> Item& {
    Item item;
    item.record.scope.user = user_of(conversation, unit);
    item.record.text = std::move(text);
    item.record.source = {"conversation", std::move(source), {}};
    item.record.event_time = session.time;
    items.push_back(std::move(item));
    return items.back();
  };
  for (const LocomoSession& session : conversation.sessions) {
    const std::string name = fmt::format("session_{}", session.number);
    if (unit == MemoryUnit::kTurn) {
      for (const LocomoTurn& turn : session.turns) {
        Item& item = add(session, said(turn), turn.id);
        item.record.kind = recall::Kind::kEpisode;
        item.record.speaker = turn.speaker;
        item.record.scope.session = name;
        item.plain = fmt::format("{}: {} {} {}", turn.speaker, turn.text, turn.caption, session.date);
        item.record.event_time += static_cast<recall::Time>(items.size()) * recall::kMicrosPerSecond;
        item.record.id = recall::new_record_id();
        if (&turn != &session.turns.front()) item.record.links = {{"follows", items[items.size() - 2].record.id}};
        item.evidence = {turn.id};
      }
    } else if (unit == MemoryUnit::kSession) {
      std::string text;
      for (const LocomoTurn& turn : session.turns) text += fmt::format("{}: {}\n", turn.speaker, said(turn));
      Item& item = add(session, std::move(text), name);
      item.plain = item.record.text + session.date;
      for (const LocomoTurn& turn : session.turns) item.evidence.push_back(turn.id);
    }
  }
  if (unit == MemoryUnit::kObservation) {
    for (const LocomoObservation& observation : conversation.observations) {
      const LocomoSession& session = conversation.sessions[observation.session];
      Item& item = add(session, observation.text, fmt::format("{}", fmt::join(observation.turns, " ")));
      item.record.kind = recall::Kind::kFact;
      item.record.speaker = observation.speaker;
      item.record.scope.session = fmt::format("session_{}", session.number);
      item.plain = observation.text + " " + session.date;
      item.evidence = observation.turns;
    }
  }
  return items;
}

double part_found(const LocomoQuestion& question, std::span<const size_t> found, std::span<const Item> items) {
  std::unordered_set<std::string> turns;
  for (const size_t i : found) turns.insert(items[i].evidence.begin(), items[i].evidence.end());
  size_t n = 0;
  for (const std::string& id : question.evidence) n += turns.contains(id);
  return static_cast<double>(n) / static_cast<double>(question.evidence.size());
}

double percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(part * static_cast<double>(values.size())))];
}

/// Asks the questions of one conversation.
class Asker {
 public:
  Asker(recall::Store& store, const MemoryRecallOptions& options) : store_(store), options_(options) {}

  /// Adds items to the store; numbers of items are remembered by record id.
  void remember(std::span<const Item> items) {
    std::vector<recall::Record> records;
    for (const Item& item : items) records.push_back(item.record);
    item_of_.clear();
    const std::vector<recall::Added> added = store_.add(records);
    for (size_t i = 0; i < added.size(); ++i) item_of_.try_emplace(added[i].id, i);
  }

  std::vector<size_t> search(const std::string& text, const std::string& user, MemoryChannel channel, size_t k,
                             MemoryRecall& row, std::vector<double>& times) {
    recall::Query query;
    query.text = text;
    query.scope.user = user;
    query.k = k;
    query.weights = options_.weights;
    query.diversity = options_.diversity;
    if (channel == MemoryChannel::kVectors) {
      query.weights.fusion.channel = {};
      query.weights.fusion.channel[static_cast<size_t>(recall::Channel::kVector)] = 1;
      query.weights.fusion.recency = 0;
      query.diversity = 0;
    }
    const recall::SearchResult result = recall::search(store_, query);
    if (k == kTimedK) {
      times.push_back(result.ms);
      row.context_tokens += static_cast<double>(result.tokens);
    }
    std::vector<size_t> found;
    for (const recall::Hit& hit : result.hits) found.push_back(item_of_.at(hit.record.id));
    return found;
  }

 private:
  recall::Store& store_;
  const MemoryRecallOptions& options_;
  std::unordered_map<std::string, size_t> item_of_;
};

}  // namespace

std::string_view unit_name(MemoryUnit unit) {
  constexpr std::array<std::string_view, 3> kNames = {"turn", "session", "observation"};
  return kNames[static_cast<size_t>(unit)];
}

std::string_view channel_name(MemoryChannel channel) {
  constexpr std::array<std::string_view, 3> kNames = {"bm25", "vectors", "hybrid"};
  return kNames[static_cast<size_t>(channel)];
}

std::vector<size_t> cuts_of(MemoryUnit unit) {
  if (unit == MemoryUnit::kSession) return {2, 5, 10};
  return {5, 10, 25, 50};
}

double MemoryRecall::mean(int category, size_t cut) const {
  double sum = 0;
  size_t n = 0;
  for (const QuestionRecall& question : questions) {
    if (category != 0 && question.category != category) continue;
    sum += question.recall[cut];
    ++n;
  }
  return n == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / static_cast<double>(n);
}

Interval paired_bootstrap(const MemoryRecall& a, const MemoryRecall& b, int category, size_t cut, uint64_t seed) {
  if (a.questions.size() != b.questions.size()) {
    fail(ErrorCode::kInvalidArgument, "[bootstrap] expected the same questions, found {} and {}", a.questions.size(),
         b.questions.size());
  }
  std::vector<double> differences;
  for (size_t i = 0; i < a.questions.size(); ++i) {
    if (category != 0 && a.questions[i].category != category) continue;
    differences.push_back(a.questions[i].recall[cut] - b.questions[i].recall[cut]);
  }
  Interval interval;
  if (differences.empty()) return interval;
  const auto n = static_cast<double>(differences.size());
  for (const double difference : differences) interval.difference += difference / n;
  PhiloxStream random(seed, static_cast<uint64_t>(category));
  std::vector<double> means(kResamples);
  for (double& mean : means) {
    for (size_t i = 0; i < differences.size(); ++i) mean += differences[random.next_below(differences.size())] / n;
  }
  std::sort(means.begin(), means.end());
  interval.low = means[kResamples / 40];
  interval.high = means[kResamples - 1 - kResamples / 40];
  return interval;
}

MemoryReport measure_memory_recall(std::span<const LocomoConversation> conversations,
                                   const MemoryRecallOptions& options,
                                   const std::function<void(uint64_t, uint64_t)>& each) {
  MemoryReport report;
  report.n_conversations = conversations.size();
  std::vector<double> tokens;  // of each conversation
  for (const LocomoConversation& conversation : conversations) {
    report.n_questions += conversation.questions.size();
    report.n_without_evidence += conversation.n_without_evidence;
    report.n_unknown_ids += conversation.n_unknown_ids;
    tokens.push_back(0);
    for (const LocomoSession& session : conversation.sessions) {
      report.n_turns += session.turns.size();
      for (const LocomoTurn& turn : session.turns)
        tokens.back() += static_cast<double>(recall::estimate_tokens(said(turn)));
    }
    report.conversation_tokens += tokens.back() * static_cast<double>(conversation.questions.size());
  }
  if (report.n_questions == 0)
    fail(ErrorCode::kInvalidArgument, "[eval memory] expected questions with evidence, found none");
  report.conversation_tokens /= static_cast<double>(report.n_questions);

  const TemporaryFolder folder;
  recall::Time now = recall::kEarliestTime;
  recall::StoreOptions store_options;
  store_options.embedder = options.embedder;
  store_options.clock = [&now] { return now; };
  const auto store =
      recall::Store::open(options.store.empty() ? folder.file("memory.db") : options.store, store_options);
  std::vector<MemoryChannel> channels = {MemoryChannel::kBm25, MemoryChannel::kHybrid};
  if (options.embedder != nullptr) channels.insert(channels.begin() + 1, MemoryChannel::kVectors);
  const uint64_t all = report.n_questions * options.units.size();
  uint64_t done = 0;
  for (const MemoryUnit unit : options.units) {
    std::vector<MemoryRecall> rows;
    std::vector<std::vector<double>> times(channels.size());
    for (const MemoryChannel channel : channels) {
      rows.push_back({});
      rows.back().unit = unit;
      rows.back().channel = channel;
      rows.back().cuts = cuts_of(unit);
    }
    for (size_t c = 0; c < conversations.size(); ++c) {
      const LocomoConversation& conversation = conversations[c];
      const std::vector<Item> items = items_of(conversation, unit);
      std::vector<std::string> plain;
      for (const Item& item : items) plain.push_back(item.plain);
      const PlainBm25 bm25(plain);
      Asker asker(*store, options);
      now = std::max(now, conversation.sessions.back().time);
      const auto begin = std::chrono::steady_clock::now();
      asker.remember(items);
      report.ingest_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      now = conversation.sessions.back().time;
      for (const LocomoQuestion& question : conversation.questions) {
        for (size_t r = 0; r < rows.size(); ++r) {
          QuestionRecall result{question.category, c, {}};
          for (const size_t k : rows[r].cuts) {
            std::vector<size_t> found;
            if (channels[r] == MemoryChannel::kBm25) {
              found = bm25.search(question.text, k);
              if (k == kTimedK) {
                for (const size_t i : found) {
                  rows[r].context_tokens += static_cast<double>(recall::estimate_tokens(items[i].record.text));
                }
              }
            } else {
              found = asker.search(question.text, user_of(conversation, unit), channels[r], k, rows[r], times[r]);
            }
            result.recall.push_back(part_found(question, found, items));
          }
          rows[r].questions.push_back(std::move(result));
        }
        each(++done, all);
      }
    }
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r].p50_ms = percentile(times[r], 0.5);
      rows[r].p95_ms = percentile(times[r], 0.95);
      rows[r].context_tokens /= static_cast<double>(report.n_questions);
      report.rows.push_back(std::move(rows[r]));
    }
  }
  return report;
}

Json to_json(const MemoryReport& report, const MemoryRecallOptions& options) {
  Json rows = Json::array();
  for (const MemoryRecall& row : report.rows) {
    Json json{{"unit", unit_name(row.unit)},
              {"channel", channel_name(row.channel)},
              {"p50_ms", row.p50_ms},
              {"p95_ms", row.p95_ms},
              {"context_tokens", row.context_tokens}};
    constexpr size_t kMainCut = 1;  // 10, of sessions 5
    for (int category = 0; category <= kLocomoCategories; ++category) {
      if (std::isnan(row.mean(category, 0))) continue;
      Json recall = Json::object();
      for (size_t cut = 0; cut < row.cuts.size(); ++cut)
        recall[std::to_string(row.cuts[cut])] = row.mean(category, cut);
      const std::string name = category == 0 ? "all" : std::to_string(category);
      json["recall"][name] = std::move(recall);
      if (row.channel == MemoryChannel::kBm25) continue;
      for (const MemoryRecall& base : report.rows) {
        if (base.unit != row.unit || base.channel != MemoryChannel::kBm25) continue;
        const Interval gain = paired_bootstrap(row, base, category, kMainCut, options.seed);
        json["gain"][name] = {
            {"at", row.cuts[kMainCut]}, {"difference", gain.difference}, {"low", gain.low}, {"high", gain.high}};
      }
    }
    rows.push_back(std::move(json));
  }
  return {{"suite", "locomo"},
          {"conversations", report.n_conversations},
          {"turns", report.n_turns},
          {"questions", report.n_questions},
          {"questions_without_evidence", report.n_without_evidence},
          {"unknown_evidence", report.n_unknown_ids},
          {"conversation_tokens", report.conversation_tokens},
          {"ingest_seconds", report.ingest_seconds},
          {"embedder", options.embedder != nullptr ? Json(options.embedder->model()) : Json(nullptr)},
          {"weights", recall::to_json(options.weights)},
          {"diversity", options.diversity},
          {"seed", options.seed},
          {"rows", rows}};
}

}  // namespace mneme
