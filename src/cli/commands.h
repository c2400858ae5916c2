#pragma once

#include <CLI/CLI.hpp>

namespace mneme::cli {

/// Options that every command takes.
struct GlobalOptions {
  bool json = false;     ///< Machine-readable output on stdout.
  bool verbose = false;
  int threads = 0;       ///< 0: all cores of the process.
};

/// Each adds one subcommand to `app`. The subcommand's callback does the work and throws mneme::Error; main() prints it.
/// `global` outlives the parse and is filled before a callback runs.
void add_apply_template(CLI::App& app, GlobalOptions& global);
void add_attend_worker(CLI::App& app, GlobalOptions& global);
void add_bench(CLI::App& app, GlobalOptions& global);
/// The subcommand of `mneme bench` that is about vector indexes; in commands/bench_ann.cpp.
void add_bench_ann(CLI::App& bench, GlobalOptions& global);
/// The subcommand of `mneme bench` that compares contiguous keys and values with block tables; in commands/bench_attention.cpp.
void add_bench_attention(CLI::App& bench, GlobalOptions& global);
void add_convert(CLI::App& app, GlobalOptions& global);
void add_cube(CLI::App& app, GlobalOptions& global);
void add_detokenize(CLI::App& app, GlobalOptions& global);
void add_embed(CLI::App& app, GlobalOptions& global);
void add_eval(CLI::App& app, GlobalOptions& global);
/// `mneme eval kv`; in commands/eval_kv.cpp.
void add_eval_kv(CLI::App& eval, GlobalOptions& global);
void add_eval_memory(CLI::App& eval, GlobalOptions& global);
/// `mneme eval quant-study`.
void add_eval_quant_study(CLI::App& eval, GlobalOptions& global);
/// Subcommands of `mneme eval` that are about scaling laws; in commands/eval_scaling.cpp.
void add_eval_scaling(CLI::App& eval, GlobalOptions& global);
/// `mneme eval stack`; in commands/eval_stack.cpp.
void add_eval_stack(CLI::App& eval, GlobalOptions& global);
void add_forget(CLI::App& app, GlobalOptions& global);
void add_import(CLI::App& app, GlobalOptions& global);
void add_info(CLI::App& app, GlobalOptions& global);
void add_logits(CLI::App& app, GlobalOptions& global);
void add_plan(CLI::App& app, GlobalOptions& global);
void add_pull(CLI::App& app, GlobalOptions& global);
void add_quantize(CLI::App& app, GlobalOptions& global);
void add_recall(CLI::App& app, GlobalOptions& global);
void add_remember(CLI::App& app, GlobalOptions& global);
void add_run(CLI::App& app, GlobalOptions& global);
void add_session(CLI::App& app, GlobalOptions& global);
void add_tokenize(CLI::App& app, GlobalOptions& global);
void add_train(CLI::App& app, GlobalOptions& global);
/// `mneme train embedder`; in commands/train_embedder.cpp.
void add_train_embedder(CLI::App& train, GlobalOptions& global);
/// `mneme train sweep`; in commands/train_sweep.cpp.
void add_train_sweep(CLI::App& train, GlobalOptions& global);

}  // namespace mneme::cli
