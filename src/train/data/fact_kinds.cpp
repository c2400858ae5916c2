#include "train/data/fact_kinds.h"

#include <fmt/format.h>

#include "train/data/word_lists.h"

namespace mneme::train {
namespace {

using Strings = std::string_view;

/// Share of open words among the values of types with a short list.
constexpr double kOpenShare = 0.7;
/// Share of pairs of words among those.
constexpr double kTwoWordShare = 0.2;

constexpr Strings kPets[] = {"cat", "dog", "horse", "parrot", "rabbit", "goat", "turtle", "hamster", "pony", "fish"};
constexpr Strings kPeople[] = {"sister", "brother", "teacher", "neighbour", "best friend", "boss", "uncle", "aunt",
                               "doctor", "cousin",  "daughter", "son",      "mother",      "father", "grandmother", "grandfather"};
constexpr Strings kVehicles[] = {"car", "bicycle", "boat", "house", "door", "coat", "hat", "umbrella", "kitchen", "sofa", "tent", "van"};
constexpr Strings kLocked[] = {"safe", "garage", "front gate", "bank card", "locker", "alarm", "cellar", "suitcase", "office door", "phone"};
constexpr Strings kKept[] = {"key", "passport", "map", "ring", "letter", "torch", "spare key", "ticket", "watch", "camera", "recipe", "hammer"};
constexpr Strings kEvents[] = {"meeting", "concert", "exam", "party", "wedding", "match", "dentist visit", "picnic", "interview", "market"};
constexpr Strings kPlaces[] = {"ship", "village", "river", "school", "inn", "mountain", "island", "theatre", "shop", "farm"};

constexpr Strings kOwnNameS[] = {"My {s} is called {v}.", "The name of my {s} is {v}.", "I have a {s}, and the name is {v}.", "By the way, my {s} is called {v}.", "My {s}'s name is {v}."};
constexpr Strings kOwnNameU[] = {"I was wrong, my {s} is called {v}.", "My {s} is now called {v}.", "Please correct that: my {s}'s name is {v}."};
constexpr Strings kOwnNameQ[] = {"What is my {s} called?", "What is the name of my {s}?", "Do you remember what my {s} is called?", "What's my {s}'s name?", "Can you tell me the name of my {s}?"};

constexpr Strings kLivesS[] = {"{s} lives in {v}.", "{s} has a house in {v}.", "My friend {s} lives in {v}.", "The home of {s} is in {v}.", "Did you know that {s} lives in {v}?"};
constexpr Strings kLivesU[] = {"{s} has moved to {v}.", "{s} now lives in {v}.", "{s} does not live there any more, but in {v}."};
constexpr Strings kLivesQ[] = {"Where does {s} live?", "Where is the home of {s}?", "In which town does {s} live?", "Do you know where {s} lives?", "Tell me where {s} lives."};

constexpr Strings kJobS[] = {"{s} works as a {v}.", "{s} is a {v}.", "{s} earns a living as a {v}.", "I heard that {s} works as a {v}."};
constexpr Strings kJobU[] = {"{s} has a new job and works as a {v}.", "{s} is now a {v}.", "{s} changed jobs and is a {v} today."};
constexpr Strings kJobQ[] = {"What does {s} do for a living?", "What is the job of {s}?", "What does {s} work as?", "Do you remember the job of {s}?"};

constexpr Strings kColourS[] = {"My {s} is {v}.", "I painted my {s} {v}.", "The colour of my {s} is {v}.", "I have a {v} {s}."};
constexpr Strings kColourU[] = {"I painted my {s} again, and now it is {v}.", "My {s} is {v} now.", "I was wrong about my {s}, it is {v}."};
constexpr Strings kColourQ[] = {"What colour is my {s}?", "What is the colour of my {s}?", "Do you remember the colour of my {s}?", "Tell me the colour of my {s}."};

constexpr Strings kFoodS[] = {"{s} loves to eat {v}.", "The favourite food of {s} is {v}.", "{s} likes {v} more than any other food.", "{s}'s favourite food is {v}."};
constexpr Strings kFoodU[] = {"{s} now likes {v} best.", "The favourite food of {s} has changed to {v}."};
constexpr Strings kFoodQ[] = {"What is the favourite food of {s}?", "What does {s} love to eat?", "What food does {s} like best?", "What is {s}'s favourite food?"};

constexpr Strings kCodeS[] = {"The code of the {s} is {v}.", "To open the {s} you need the code {v}.", "The {s} has the code {v}.", "Remember the code of the {s}: {v}."};
constexpr Strings kCodeU[] = {"The code of the {s} has changed to {v}.", "The new code of the {s} is {v}.", "I changed the code of the {s}, it is {v} now."};
constexpr Strings kCodeQ[] = {"What is the code of the {s}?", "Which code opens the {s}?", "Do you remember the code of the {s}?", "Tell me the code of the {s}."};

constexpr Strings kKeptS[] = {"The {s} is in the {v}.", "I put the {s} in the {v}.", "I keep the {s} in the {v}.", "You can find the {s} in the {v}."};
constexpr Strings kKeptU[] = {"I moved the {s} to the {v}.", "The {s} is now in the {v}.", "I took the {s} and put it in the {v}."};
constexpr Strings kKeptQ[] = {"Where is the {s}?", "Where did I put the {s}?", "Where can I find the {s}?", "Do you remember where the {s} is?"};

constexpr Strings kDayS[] = {"The {s} is on {v}.", "The {s} will be on {v}.", "Please remember that the {s} is on {v}."};
constexpr Strings kDayU[] = {"The {s} has been moved to {v}.", "The {s} is on {v} instead.", "They changed the day: the {s} is on {v}."};
constexpr Strings kDayQ[] = {"When is the {s}?", "On which day is the {s}?", "What day is the {s}?", "Do you remember when the {s} is?"};

constexpr Strings kPlaceS[] = {"The {s} is called {v}.", "The name of the {s} is {v}.", "People call the {s} {v}."};
constexpr Strings kPlaceU[] = {"The {s} has a new name, it is called {v}.", "The {s} is now called {v}."};
constexpr Strings kPlaceQ[] = {"What is the {s} called?", "What is the name of the {s}?", "How do people call the {s}?"};

constexpr Strings kAgeS[] = {"{s} is {v} years old.", "The age of {s} is {v}.", "{s} turned {v} this year."};
constexpr Strings kAgeU[] = {"It was the birthday of {s}, who is now {v} years old.", "I was wrong, {s} is {v} years old."};
constexpr Strings kAgeQ[] = {"How old is {s}?", "What is the age of {s}?", "Do you know how old {s} is?"};

constexpr Strings kHobbyS[] = {"{s} likes {v}.", "The hobby of {s} is {v}.", "{s} spends every free hour on {v}.", "In the evening {s} enjoys {v}."};
constexpr Strings kHobbyU[] = {"{s} has a new hobby, {v}.", "{s} prefers {v} now."};
constexpr Strings kHobbyQ[] = {"What is the hobby of {s}?", "What does {s} like to do?", "What does {s} do in the evening?"};

constexpr Strings kUserNameS[] = {"My name is {v}.", "I am {v}.", "Hello, I am {v}.", "Please call me {v}."};
constexpr Strings kUserNameU[] = {"I want you to call me {v} from now on.", "My name is {v} now."};
constexpr Strings kUserNameQ[] = {"What is my name?", "Do you remember my name?", "Who am I?", "What am I called?"};

constexpr Strings kUserTownS[] = {"I live in {v}.", "My home is in {v}.", "I have a small flat in {v}."};
constexpr Strings kUserTownU[] = {"I have moved to {v}.", "I live in {v} now."};
constexpr Strings kUserTownQ[] = {"Where do I live?", "Do you remember where I live?", "In which town do I live?"};

constexpr Strings kUserFoodS[] = {"My favourite food is {v}.", "I love to eat {v}.", "The food I like best is {v}."};
constexpr Strings kUserFoodU[] = {"My favourite food is now {v}.", "I like {v} best now."};
constexpr Strings kUserFoodQ[] = {"What is my favourite food?", "What food do I like best?", "Do you remember what I love to eat?"};

constexpr Strings kPetS[] = {"{s} has a {v}.", "{s} owns a {v}.", "There is a {v} in the house of {s}."};
constexpr Strings kPetU[] = {"{s} gave it away and has a {v} now.", "{s} now has a {v}."};
constexpr Strings kPetQ[] = {"What animal does {s} have?", "Which animal does {s} own?", "What kind of animal lives with {s}?"};

constexpr FactKind kKinds[] = {
    {SubjectType::kOwn, ValueType::kName, kPets, kOwnNameS, kOwnNameU, kOwnNameQ, "Your {s} is called {v}.", "The user's {s} is called {v}.", "what your {s} is called"},
    {SubjectType::kOwn, ValueType::kName, kPeople, kOwnNameS, kOwnNameU, kOwnNameQ, "Your {s} is called {v}.", "The user's {s} is called {v}.", "what your {s} is called"},
    {SubjectType::kPerson, ValueType::kPlace, {}, kLivesS, kLivesU, kLivesQ, "{s} lives in {v}.", "{s} lives in {v}.", "where {s} lives"},
    {SubjectType::kPerson, ValueType::kJob, {}, kJobS, kJobU, kJobQ, "{s} works as a {v}.", "{s} works as a {v}.", "what {s} does for a living"},
    {SubjectType::kOwn, ValueType::kColour, kVehicles, kColourS, kColourU, kColourQ, "Your {s} is {v}.", "The user's {s} is {v}.", "the colour of your {s}"},
    {SubjectType::kPerson, ValueType::kFood, {}, kFoodS, kFoodU, kFoodQ, "The favourite food of {s} is {v}.", "The favourite food of {s} is {v}.", "the favourite food of {s}"},
    {SubjectType::kThing, ValueType::kCode, kLocked, kCodeS, kCodeU, kCodeQ, "The code of the {s} is {v}.", "The code of the {s} is {v}.", "the code of the {s}"},
    {SubjectType::kThing, ValueType::kContainer, kKept, kKeptS, kKeptU, kKeptQ, "The {s} is in the {v}.", "The {s} is in the {v}.", "where the {s} is"},
    {SubjectType::kThing, ValueType::kDay, kEvents, kDayS, kDayU, kDayQ, "The {s} is on {v}.", "The {s} is on {v}.", "when the {s} is"},
    {SubjectType::kThing, ValueType::kPlace, kPlaces, kPlaceS, kPlaceU, kPlaceQ, "The {s} is called {v}.", "The {s} is called {v}.", "what the {s} is called"},
    {SubjectType::kPerson, ValueType::kAge, {}, kAgeS, kAgeU, kAgeQ, "{s} is {v} years old.", "{s} is {v} years old.", "how old {s} is"},
    {SubjectType::kPerson, ValueType::kHobby, {}, kHobbyS, kHobbyU, kHobbyQ, "{s} likes {v}.", "{s} likes {v}.", "what {s} likes to do"},
    {SubjectType::kUser, ValueType::kName, {}, kUserNameS, kUserNameU, kUserNameQ, "Your name is {v}.", "The user's name is {v}.", "your name"},
    {SubjectType::kUser, ValueType::kPlace, {}, kUserTownS, kUserTownU, kUserTownQ, "You live in {v}.", "The user lives in {v}.", "where you live"},
    {SubjectType::kUser, ValueType::kFood, {}, kUserFoodS, kUserFoodU, kUserFoodQ, "Your favourite food is {v}.", "The user's favourite food is {v}.", "what your favourite food is"},
    {SubjectType::kPerson, ValueType::kAnimal, {}, kPetS, kPetU, kPetQ, "{s} has a {v}.", "{s} has a {v}.", "what animal {s} has"},
};

std::string pick_word(PhiloxStream& random, Split split, std::span<const std::string_view> words) {
  for (;;) {
    const std::string_view word = words[random.next_below(words.size())];
    if (split_of(word) == split) return std::string(word);
  }
}

/// A day of the year; the days themselves are split, since there are too few months.
std::string invent_day(PhiloxStream& random, Split split) {
  for (;;) {
    const std::string_view month = month_words()[random.next_below(month_words().size())];
    const std::string day = fmt::format("{} {}", month, 1 + random.next_below(28));
    if (split_of(day) == split) return day;
  }
}

}  // namespace

std::span<const FactKind> fact_kinds() {
  return kKinds;
}

std::string invent_value(PhiloxStream& random, Split split, ValueType type, std::span<const std::string> open_words) {
  const auto word = [&](std::span<const std::string_view> list) -> std::string {
    if (open_words.empty() || random.next_double() >= kOpenShare) return pick_word(random, split, list);
    std::string text = open_words[random.next_below(open_words.size())];
    if (random.next_double() < kTwoWordShare) text += " " + open_words[random.next_below(open_words.size())];
    return text;
  };
  switch (type) {
    case ValueType::kName:
    case ValueType::kPlace:
      return invent_name(random, split);
    case ValueType::kColour:
      return word(colour_words());
    case ValueType::kFood:
      return word(food_words());
    case ValueType::kJob:
      return word(job_words());
    case ValueType::kAnimal:
      return word(animal_words());
    case ValueType::kCode:
      return invent_number(random, split, 4);
    case ValueType::kAge:
      return invent_number(random, split, 2);
    case ValueType::kDay:
      return invent_day(random, split);
    case ValueType::kContainer: {
      const std::string colour = word(colour_words());
      return colour + " " + word(container_words());
    }
    case ValueType::kHobby:
      return word(hobby_words());
  }
  return {};
}

Fact invent_fact(PhiloxStream& random, Split split, std::span<const std::string> people,
                 std::span<const std::string> open_words) {
  Fact fact;
  fact.kind = random.next_below(fact_kinds().size());
  const FactKind& kind = fact_kinds()[fact.kind];
  if (kind.subject == SubjectType::kPerson) {
    fact.subject = people[random.next_below(people.size())];
  } else if (kind.subject != SubjectType::kUser) {
    fact.subject = kind.subjects[random.next_below(kind.subjects.size())];
  }
  fact.value = invent_value(random, split, kind.value, open_words);
  return fact;
}

std::string fill(std::string_view pattern, std::string_view subject, std::string_view value) {
  std::string text;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.substr(i).starts_with("{s}")) {
      text += subject;
      i += 2;
    } else if (pattern.substr(i).starts_with("{v}")) {
      text += value;
      i += 2;
    } else {
      text += pattern[i];
    }
  }
  return text;
}

}  // namespace mneme::train
