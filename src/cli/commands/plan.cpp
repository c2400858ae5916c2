#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/byte_size.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/plan_table.h"
#include "engine/engine.h"

namespace mneme::cli {

void add_plan(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<ModelOptions>();
  CLI::App* command = app.add_subcommand("plan", "Show where each byte would go, and the speed to expect, from headers alone");
  options->add_to(*command, true);
  command->footer("Example: mneme plan model.gguf --memory 4G --context 32k");
  command->callback([options, &global] {
    Ledger ledger;
    const auto engine = Engine::plan_only(options->model, options->request(false), ledger);
    const double rate = measured_read_rate(engine->plan());
    if (global.json) {
      fmt::print("{}\n", plan_json(engine->plan(), rate).dump(2));
    } else {
      fmt::print("{}", plan_table(engine->plan(), rate));
    }
  });
}

}  // namespace mneme::cli
