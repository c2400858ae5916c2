#include "train/data/dialogue.h"

#include <algorithm>

namespace mneme::train {
namespace {

using Strings = std::string_view;

constexpr Strings kSystemIntros[] = {"You are a helpful assistant.", "You are a friendly assistant with a good memory.",
                                     "Answer in short sentences.", "You help the user and remember what you are told."};
constexpr Strings kAcks[] = {"Okay.", "Thank you, I will remember that.", "Got it.", "I will keep that in mind.", "Good to know.", "Noted."};
constexpr Strings kGreetings[] = {"Hello!", "Good morning.", "Hi.", "Good evening!", "Hello, how are you?"};
constexpr Strings kGreetingReplies[] = {"Hello! How can I help you?", "Hello, it is good to see you.", "Hi! What can I do for you?"};
constexpr Strings kStoryRequests[] = {"Tell me a story.", "Can you tell me a story?", "I want to hear a story.", "Please tell me a short story."};
constexpr Strings kReadRequests[] = {"Read me something from a book.", "Please read to me.", "Can you read me a page of a book?"};
constexpr Strings kPasteIntros[] = {"Here is something I read today: ", "Listen to this: ", "I found this text: ", "Please read this. "};
constexpr Strings kPasteReplies[] = {"Thank you, I have read it.", "That was nice to read.", "Thank you for showing it to me."};
constexpr Strings kThanks[] = {"Thank you.", "Thanks, that is right.", "Good.", "Very well."};
constexpr Strings kThanksReplies[] = {"You are welcome.", "I am glad to help.", "Of course."};

/// One dialogue being written.
class Writer {
 public:
  Writer(PhiloxStream& random, const TextSource& texts, Split split) : random_(random), texts_(texts), split_(split) {
    const size_t n_people = 2 + random_.next_below(5);
    for (size_t i = 0; i < n_people; ++i) people_.push_back(invent_name(random_, split_));
  }

  size_t chars() const { return chars_; }
  size_t n_told() const { return told_.size(); }
  std::vector<Turn> take() { return std::move(turns_); }

  void system_message(size_t n_facts) {
    std::string text;
    if (n_facts == 0 || chance(0.5)) text = pick(kSystemIntros);
    if (n_facts > 0) {
      text += text.empty() ? "Known:" : " Known:";
      for (size_t i = 0; i < n_facts; ++i) {
        const Fact fact = new_fact();
        told_.push_back(fact);
        text += ' ';
        text += fill(kind_of(fact).known, fact.subject, fact.value);
      }
    }
    add(Speaker::kSystem, TurnKind::kStatement, text);
  }

  void tell(size_t n_facts) {
    std::string text;
    for (size_t i = 0; i < n_facts; ++i) {
      const Fact fact = new_fact();
      told_.push_back(fact);
      if (!text.empty()) text += ' ';
      text += fill(pick(kind_of(fact).statements), fact.subject, fact.value);
    }
    add(Speaker::kUser, TurnKind::kStatement, text);
    add(Speaker::kAssistant, TurnKind::kChatter, pick(kAcks));
  }

  void update() {
    Fact& fact = told_[random_.next_below(told_.size())];
    const std::string old = fact.value;
    while (fact.value == old) fact.value = invent_value(random_, split_, kind_of(fact).value, open_words());
    add(Speaker::kUser, TurnKind::kStatement, fill(pick(kind_of(fact).updates), fact.subject, fact.value));
    add(Speaker::kAssistant, TurnKind::kChatter, pick(kAcks));
  }

  void ask_told(size_t index) {
    const Fact& fact = told_[index];
    ask(fact);
    Turn answer{Speaker::kAssistant, TurnKind::kAnswer, fill(kind_of(fact).answer, fact.subject, fact.value)};
    const Strings pattern = kind_of(fact).answer;
    answer.value_begin = fill(pattern.substr(0, pattern.find("{v}")), fact.subject, "").size();
    answer.value_end = answer.value_begin + fact.value.size();
    add(std::move(answer));
  }

  void ask_told() { ask_told(random_.next_below(told_.size())); }

  /// A question about something that was never said.
  void ask_untold() { refuse(new_fact()); }

  /// The same about somebody of whom something else was said, which is harder: what was said must not be taken for an
  /// answer. About anything, when everything was said about everybody.
  void ask_untold_of_known() {
    std::vector<Fact> open;
    for (const Fact& told : told_) {
      const SubjectType subject = kind_of(told).subject;
      if (subject != SubjectType::kPerson && subject != SubjectType::kUser) continue;
      for (size_t kind = 0; kind < fact_kinds().size(); ++kind) {
        Fact fact{kind, told.subject, ""};
        if (fact_kinds()[kind].subject == subject && !is_told(fact)) open.push_back(std::move(fact));
      }
    }
    refuse(open.empty() ? new_fact() : open[random_.next_below(open.size())]);
  }

  void filler(size_t max_chars) {
    const size_t wanted = std::max<size_t>(80, max_chars / 4 + random_.next_below(std::max<size_t>(1, max_chars * 3 / 4)));
    const bool story = texts_.has_stories() && (!texts_.has_passages() || chance(0.5));
    std::string text = story ? texts_.story(random_, wanted) : texts_.passage(random_, split_, wanted);
    if (!story && chance(0.4)) {
      add(Speaker::kUser, TurnKind::kText, std::string(pick(kPasteIntros)) + text);
      add(Speaker::kAssistant, TurnKind::kChatter, pick(kPasteReplies));
      return;
    }
    add(Speaker::kUser, TurnKind::kChatter, story ? pick(kStoryRequests) : pick(kReadRequests));
    add(Speaker::kAssistant, TurnKind::kText, std::move(text));
  }

  void greet() {
    add(Speaker::kUser, TurnKind::kChatter, pick(kGreetings));
    add(Speaker::kAssistant, TurnKind::kChatter, pick(kGreetingReplies));
  }

  void thank() {
    add(Speaker::kUser, TurnKind::kChatter, pick(kThanks));
    add(Speaker::kAssistant, TurnKind::kChatter, pick(kThanksReplies));
  }

  bool chance(double probability) { return random_.next_double() < probability; }

 private:
  static const FactKind& kind_of(const Fact& fact) { return fact_kinds()[fact.kind]; }

  template <size_t n>
  std::string pick(const Strings (&choices)[n]) {
    return std::string(choices[random_.next_below(n)]);
  }
  Strings pick(std::span<const Strings> choices) { return choices[random_.next_below(choices.size())]; }

  /// Tests use the held-out words of the lists alone.
  std::span<const std::string> open_words() const {
    return split_ == Split::kTrain ? texts_.train_words() : std::span<const std::string>();
  }

  /// Whether two facts would answer the same question.
  static bool same_question(const Fact& a, const Fact& b) {
    return kind_of(a).unknown == kind_of(b).unknown && a.subject == b.subject;
  }

  bool is_told(const Fact& fact) const {
    return std::any_of(told_.begin(), told_.end(), [&](const Fact& other) { return same_question(fact, other); });
  }

  /// A fact whose question has no answer yet.
  Fact new_fact() {
    for (;;) {
      if (!people_.empty() && chance(0.1)) people_.push_back(invent_name(random_, split_));
      Fact fact = invent_fact(random_, split_, people_, open_words());
      if (!is_told(fact)) return fact;
    }
  }

  void refuse(const Fact& fact) {
    ask(fact);
    add(Speaker::kAssistant, TurnKind::kRefusal, "I don't know " + fill(kind_of(fact).unknown, fact.subject, "") + ".");
  }

  void ask(const Fact& fact) {
    add(Speaker::kUser, TurnKind::kQuestion, fill(pick(kind_of(fact).questions), fact.subject, ""));
  }

  void add(Speaker speaker, TurnKind kind, std::string text) { add(Turn{speaker, kind, std::move(text)}); }
  void add(Turn turn) {
    chars_ += turn.text.size() + 8;  // the markers of a turn cost two tokens
    turns_.push_back(std::move(turn));
  }

  PhiloxStream& random_;
  const TextSource& texts_;
  Split split_;
  std::vector<std::string> people_;
  std::vector<Fact> told_;
  std::vector<Turn> turns_;
  size_t chars_ = 0;
};

constexpr size_t kCharsPerQuestion = 90;

}  // namespace

std::vector<Turn> DialogueMaker::make(PhiloxStream& random, const DialogueOptions& options) const {
  Writer writer(random, texts_, split_);
  const size_t most_facts = std::clamp<size_t>(options.max_chars / 200, 3, 14);
  if (writer.chance(0.35)) {
    writer.system_message(1 + random.next_below(most_facts));
  } else if (writer.chance(0.3)) {
    writer.system_message(0);
  }
  if (writer.chance(0.15)) writer.greet();
  if (writer.n_told() == 0) writer.tell(1 + random.next_below(3));
  // Most of the dialogue mixes events; the end is a burst of questions about whatever was said.
  const size_t burst = std::min<size_t>(8, std::max<size_t>(2, options.max_chars / 400));
  const size_t middle = options.max_chars > burst * kCharsPerQuestion ? options.max_chars - burst * kCharsPerQuestion : 0;
  size_t filled = 0;
  while (writer.chars() < middle) {
    const size_t left = middle - writer.chars();
    if (left > 150 && static_cast<double>(filled) < options.filler_share * static_cast<double>(writer.chars())) {
      const size_t before = writer.chars();
      writer.filler(std::min(left, options.max_filler_chars));
      filled += writer.chars() - before;
    }
    const double draw = random.next_double();
    if (draw < 0.25 && writer.n_told() < most_facts) {
      writer.tell(1 + random.next_below(3));
    } else if (draw < 0.33) {
      writer.update();
    } else if (draw < 0.77) {
      writer.ask_told();
    } else if (draw < 0.86) {
      writer.ask_untold();
    } else if (draw < 0.95) {
      writer.ask_untold_of_known();
    } else {
      writer.thank();
    }
  }
  for (size_t i = 0; i < burst && writer.chars() + kCharsPerQuestion <= options.max_chars; ++i) {
    const double draw = random.next_double();
    if (draw < 0.15) {
      writer.ask_untold();
    } else if (draw < 0.30) {
      writer.ask_untold_of_known();
    } else {
      writer.ask_told();
    }
  }
  return writer.take();
}

std::vector<Turn> DialogueMaker::make_probe(PhiloxStream& random, size_t n_facts, size_t filler_chars,
                                            bool answerable) const {
  Writer writer(random, texts_, split_);
  if (writer.chance(0.35)) writer.system_message(n_facts);
  while (writer.n_told() < n_facts) writer.tell(1);
  const size_t target = writer.chars() + filler_chars;
  while (writer.chars() + 80 < target) writer.filler(std::min<size_t>(target - writer.chars(), 1200));
  if (answerable) {
    writer.ask_told();
  } else {
    writer.ask_untold();
  }
  return writer.take();
}

}  // namespace mneme::train
