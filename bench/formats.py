#!/usr/bin/env python3
"""Speed of one model in every format of `mneme quantize`, and a Markdown table of it.

  bench/formats.py llama1b-bf16.gguf --work /tmp --json formats.json
  bench/formats.py llama1b-bf16.gguf --formats Q4_0,DF12 --rounds 1 --repetitions 2
  bench/formats.py llama1b-bf16.gguf --peer-decode 'llama-bench -m {model} -t 2 -p 0 -n 24 -r 3 -o json' \
                   --peer-prefill 'llama-bench -m {model} -t 2 -p 512 -n 0 -r 3 -o json'

Another program is measured beside mneme on the formats that it can read; its commands are those of compare.py.

Each format is made, measured and deleted before the next, so that the disk needs room for one file. A format whose making takes
longer than --limit seconds is left out, with a note; AQLM, KMEANS and BITSTACK may, without calibration too. BITSTACK is made
once and then cut: its file's beginning is a smaller model.

A round measures the memory's read rate, decode and prefill directly after each other; the table has medians over rounds, with
least and greatest of decode and prefill. The source is measured first and last, which shows how far the machine drifted. Bits are
those of all tensors: the token table of many formats is Q6_K. Weights may be random, so nothing is said of quality.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from compare import peer_rate

# Parts of a stack's blocks that are measured.
STACK_PARTS = (1.0, 0.75, 0.5, 0.375, 0.25)


def run(command, limit=None):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"{command[1]} failed"])[-1])
    return done.stdout


def read_json(command):
    return json.loads(run(command))


def all_formats(mneme):
    """Names from the list at the end of `mneme quantize --help`."""
    lines = run([mneme, "quantize", "--help"]).split("\nFormats:\n")[1].splitlines()
    return [line.split()[0] for line in lines if line.startswith("  ")]


def measure(args, name, path, seconds):
    info = read_json([args.mneme, "info", path, "--json"])
    row = {"format": name, "bytes": info["file_bytes"], "bits": info["bits_per_weight"], "seconds_to_make": seconds,
           "memory": [], "decode": [], "read": [], "prefill": [], "peer decode": [], "peer prefill": []}
    reps = str(args.repetitions)
    for _ in range(args.rounds):
        row["memory"].append(read_json([args.mneme, "bench", "membw", "--json"])["bytes_per_second"]["median"])
        decode = read_json([args.mneme, "bench", "decode", path, "-n", str(args.decode_tokens), "-r", reps, "--json"])
        row["decode"].append(decode["tokens_per_second"]["median"])
        row["read"].append(decode["bytes_per_second"]["median"])
        prefill = read_json([args.mneme, "bench", "prefill", path, "-n", str(args.prefill_tokens), "-r", reps, "--json"])
        row["prefill"].append(prefill["tokens_per_second"]["median"])
        for kind, command in (("peer decode", args.peer_decode), ("peer prefill", args.peer_prefill)):
            row[kind].append(peer_rate(command, path))
    return row


def stack_rows(args, path, seconds):
    """Rows of a stack and of ever shorter beginnings of its file, which goes shorter with them."""
    rows = []
    blocks = [t["bytes"] for t in read_json([args.mneme, "info", path, "--json"])["types"] if t["type"] == "I8"][0]
    others = os.path.getsize(path) - blocks
    for part in STACK_PARTS:
        os.truncate(path, others + int(part * blocks))
        rows.append(measure(args, f"BITSTACK, {part:g} of the blocks", path, seconds))
    return rows


def rows_of(args, name):
    path = os.path.join(args.work, f"formats-{os.getpid()}.gguf")
    start = time.monotonic()
    try:
        run([args.mneme, "quantize", args.model, path, "--format", name, "--lossy"], args.limit)
        seconds = time.monotonic() - start
        return stack_rows(args, path, seconds) if name == "BITSTACK" else [measure(args, name, path, seconds)]
    except subprocess.TimeoutExpired:
        return [{"format": name, "note": f"making it takes more than {args.limit:g} s"}]
    except RuntimeError as failure:
        return [{"format": name, "note": str(failure)}]
    finally:
        for leftover in os.listdir(args.work):
            if leftover.startswith(os.path.basename(path)):
                os.remove(os.path.join(args.work, leftover))


def spread(values):
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def line(row):
    if "note" in row:
        return f"| {row['format']} | {row['note']} | | | | | | | | |"
    made = "" if row["seconds_to_make"] is None else f"{row['seconds_to_make']:.0f}"
    part = statistics.median(r / m for r, m in zip(row["read"], row["memory"]))
    return (f"| {row['format']} | {row['bits']:.3f} | {row['bytes'] / 2**20:.1f} | {made} | {spread(row['decode'])} "
            f"| {spread(row['peer decode'])} | {statistics.median(row['read']) / 1e9:.1f} | {part:.2f} "
            f"| {spread(row['prefill'])} | {spread(row['peer prefill'])} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the source, BF16")
    parser.add_argument("--mneme", default="build/release/mneme")
    parser.add_argument("--formats", help="such as Q4_0,DF12; without it all that mneme quantize lists")
    parser.add_argument("--work", default=".", help="folder for the one file, on a disk with room")
    parser.add_argument("--limit", type=float, default=120, help="most seconds to make a format")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--decode-tokens", type=int, default=48)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--peer-decode", help="command of another program, {model} stands for the file")
    parser.add_argument("--peer-prefill")
    parser.add_argument("--json", help="file for the numbers, written anew after each format")
    args = parser.parse_args()

    rows = []
    print("| format | bits | MiB | s to make | decode, tokens/s | peer | GB/s read | part of memory | prefill, tokens/s | peer |")
    print("|---|---|---|---|---|---|---|---|---|---|")

    def add(new):
        rows.extend(new)
        for row in new:
            print(line(row), flush=True)
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump({"model": os.path.basename(args.model), "rounds": args.rounds, "rows": rows}, file, indent=1)

    add([measure(args, "source", args.model, None)])
    for name in args.formats.split(",") if args.formats else all_formats(args.mneme):
        print(f"{name} ...", file=sys.stderr)
        add(rows_of(args, name))
    add([measure(args, "source again", args.model, None)])


if __name__ == "__main__":
    main()
