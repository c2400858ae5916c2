#!/usr/bin/env python3
"""Compares mneme with another program on the same model files, round by round, and prints a Markdown table.

The other program is given as two commands in which {model} stands for the file; each prints JSON with
`tokens_per_second: {"median": ...}` or, like llama-bench -o json, a list of objects with `avg_ts`.

  bench/compare.py --rounds 3 \\
      --peer-decode  'llama-bench -m {model} -t 2 -p 0 -n 64 -r 5 -o json' \\
      --peer-prefill 'llama-bench -m {model} -t 2 -p 512 -n 0 -r 5 -o json' \\
      model-q8_0.gguf model-q4_0.gguf

A model that the peer cannot read has no numbers of the peer; without --peer-decode and --peer-prefill nothing has.

Every round measures, for each model, the memory's read rate, mneme and the peer directly after each other, so that a machine
whose speed drifts treats both alike. The table has medians over rounds, with least and greatest.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    text = done.stdout.strip()
    start = min(i for i in (text.find("{"), text.find("[")) if i >= 0)
    return json.JSONDecoder().raw_decode(text[start:])[0]


def peer_rate(command, model):
    """The peer's tokens a second, or None when there is no command or it cannot read the model."""
    if not command:
        return None
    try:
        return rate(run(shlex.split(command.replace("{model}", model))))
    except SystemExit as failure:
        print(f"note: {failure}", file=sys.stderr)
        return None


def rate(result):
    if isinstance(result, list):
        return result[0]["avg_ts"]
    return result["tokens_per_second"]["median"]


def spread(values, digits=1):
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mneme", default="build/release/mneme")
    parser.add_argument("--peer-decode")
    parser.add_argument("--peer-prefill")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()

    results = {model: {"membw": [], "decode": [], "bytes": [], "peer decode": [], "prefill": [], "peer prefill": []}
               for model in args.models}
    for _ in range(args.rounds):
        for model, r in results.items():
            reps = str(args.repetitions)
            r["membw"].append(run([args.mneme, "bench", "membw", "--json"])["bytes_per_second"]["median"] / 1e9)
            decode = run([args.mneme, "bench", "decode", model, "-n", str(args.decode_tokens), "-r", reps, "--json"])
            r["decode"].append(rate(decode))
            r["bytes"].append(decode["bytes_per_second"]["median"] / 1e9)
            r["peer decode"].append(peer_rate(args.peer_decode, model))
            r["prefill"].append(rate(run([args.mneme, "bench", "prefill", model, "-n", str(args.prefill_tokens), "-r", reps,
                                          "--json"])))
            r["peer prefill"].append(peer_rate(args.peer_prefill, model))

    def ratios(r, kind):
        return [a / b for a, b in zip(r[kind], r["peer " + kind]) if b is not None]

    print("| model | decode, tokens/s | peer | ratio | GB/s read | memory GB/s | part of memory | prefill, tokens/s | peer | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for model, r in results.items():
        part = [b / m for b, m in zip(r["bytes"], r["membw"])]
        print("|", " | ".join([os.path.basename(model), spread(r["decode"]), spread(r["peer decode"]),
                               spread(ratios(r, "decode"), 2), spread(r["bytes"]), spread(r["membw"]), spread(part, 2),
                               spread(r["prefill"]), spread(r["peer prefill"]), spread(ratios(r, "prefill"), 2)]), "|")


if __name__ == "__main__":
    main()
