// Any text as a file of LoCoMo. What is read keeps what its header promises: sessions in order, evidence that names turns.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

#include "base/error.h"
#include "eval/locomo.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mneme;
  try {
    const auto all = parse_locomo(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    for (const LocomoConversation& conversation : all) {
      std::set<std::string> ids;
      for (size_t i = 0; i < conversation.sessions.size(); ++i) {
        if (i > 0 && conversation.sessions[i].time < conversation.sessions[i - 1].time) std::abort();
        for (const LocomoTurn& turn : conversation.sessions[i].turns) ids.insert(turn.id);
      }
      for (const LocomoObservation& observation : conversation.observations) {
        if (observation.session >= conversation.sessions.size()) std::abort();
      }
      for (const LocomoQuestion& question : conversation.questions) {
        if (question.evidence.empty() || question.category < 1 || question.category > kLocomoCategories) std::abort();
        for (const std::string& id : question.evidence) {
          if (!ids.contains(id)) std::abort();
        }
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
