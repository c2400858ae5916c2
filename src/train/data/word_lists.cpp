#include "train/data/word_lists.h"

namespace mneme::train {
namespace {

constexpr std::string_view kColours[] = {
    "red", "blue", "green", "yellow", "black", "white", "brown", "purple", "orange", "pink", "grey", "silver", "golden", "violet",
    "crimson", "scarlet", "turquoise", "ivory", "amber", "copper", "olive", "navy", "cream", "beige", "emerald", "bronze", "lilac",
    "maroon", "rose", "indigo"};
constexpr std::string_view kFoods[] = {
    "bread", "rice", "soup", "cheese", "apple pie", "honey", "fish stew", "pancakes", "porridge", "salad", "roast chicken",
    "noodles", "mushrooms", "plums", "cherries", "walnuts", "dumplings", "pea soup", "omelette", "chocolate", "lamb stew",
    "potatoes", "carrots", "beans", "grapes", "figs", "dates", "waffles", "biscuits", "ginger cake", "pears", "peaches",
    "strawberries", "blueberries", "onion soup", "baked beans", "roast duck", "smoked trout", "lentils", "corn bread", "plum cake",
    "lemon tart", "butter toast", "tomato soup", "garlic bread", "oysters", "pickles", "raisins", "melon", "chestnuts"};
constexpr std::string_view kJobs[] = {
    "baker", "teacher", "doctor", "farmer", "sailor", "painter", "carpenter", "tailor", "miller", "fisherman", "gardener", "nurse",
    "lawyer", "judge", "pilot", "driver", "singer", "dancer", "writer", "printer", "mason", "plumber", "butcher", "cook", "waiter",
    "shepherd", "hunter", "soldier", "guard", "clerk", "banker", "merchant", "barber", "blacksmith", "weaver", "potter", "jeweller",
    "librarian", "postman", "journalist", "dentist", "chemist", "surgeon", "musician", "actor", "juggler", "beekeeper", "glazier",
    "locksmith", "watchmaker"};
constexpr std::string_view kAnimals[] = {
    "cat", "dog", "horse", "parrot", "rabbit", "goat", "turtle", "hamster", "pony", "donkey", "sheep", "goose", "duck", "hen",
    "owl", "fox", "monkey", "snake", "lizard", "frog", "mouse", "squirrel", "hedgehog", "canary", "pigeon", "raven", "falcon",
    "camel", "llama", "pig", "cow", "swan", "peacock", "badger", "otter", "beaver", "toad", "spider", "beetle", "crab"};
constexpr std::string_view kMonths[] = {"January", "February", "March", "April", "May", "June", "July", "August", "September",
                                        "October", "November", "December"};
constexpr std::string_view kContainers[] = {
    "box", "drawer", "jar", "basket", "bag", "chest", "cupboard", "bucket", "tin", "barrel", "bottle", "bowl", "trunk", "sack", "crate",
    "wardrobe", "desk", "case", "purse", "backpack", "vase", "kettle", "shed", "cabinet", "folder", "envelope", "locker", "tub",
    "pocket", "pot"};
constexpr std::string_view kHobbies[] = {
    "painting", "swimming", "reading", "chess", "fishing", "singing", "dancing", "hiking", "cooking", "gardening", "sailing",
    "knitting", "sewing", "running", "cycling", "climbing", "skating", "writing", "drawing", "archery", "pottery", "carving",
    "photography", "football", "tennis", "riding", "juggling", "rowing", "skiing", "playing cards", "playing the flute",
    "playing the piano", "playing the drum", "collecting stamps", "collecting shells", "watching birds", "baking", "weaving",
    "flying kites", "telling jokes"};

}  // namespace

std::span<const std::string_view> colour_words() { return kColours; }
std::span<const std::string_view> food_words() { return kFoods; }
std::span<const std::string_view> job_words() { return kJobs; }
std::span<const std::string_view> animal_words() { return kAnimals; }
std::span<const std::string_view> month_words() { return kMonths; }
std::span<const std::string_view> container_words() { return kContainers; }
std::span<const std::string_view> hobby_words() { return kHobbies; }

}  // namespace mneme::train
