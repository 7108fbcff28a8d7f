#!/usr/bin/env python3
"""Scores what came back from an echo against what was said (PESQ, ITU-T P.862, narrow band) and prints the table.

    score.py FOLDER CODEC... -- NAME...     as hack/bench-codecs.sh leaves it: NAME.wav is what was said; for each codec
                                            CODEC-call-NAME.wav with CODEC-NAME.json, CODEC-alone-NAME.wav;
                                            server.log with the calls' records
"""

import json
import sys
import wave
from multiprocessing import Pool
from pathlib import Path
from statistics import mean, median

import numpy
from pesq import pesq

RATE = 8000
# Before the delay that the call told, and after the end of what was said.
BEFORE = RATE * 4 // 100
AFTER = RATE * 3 // 10

FOLDER = Path(sys.argv[1])
DIVIDER = sys.argv.index("--")
CODECS, NAMES = sys.argv[2:DIVIDER], sys.argv[DIVIDER + 1 :]


def read(name):
    with wave.open(str(FOLDER / name)) as file:
        return numpy.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def call(codec, name):
    result = json.loads((FOLDER / f"{codec}-{name}.json").read_text())
    if result["echo"] is None:
        sys.exit(f"error: nothing of {name} came back in {codec}")
    if result["codec"].split("/")[0].lower() != codec.lower():
        sys.exit(f"error: {codec} was asked for, and {result['codec']} agreed on")
    return result


def records():
    """What the server has written of each call."""
    found = []
    for line in (FOLDER / "server.log").read_text().splitlines():
        if '"ringwire::call"' in line:
            line = json.loads(line)
            found.append(line.get("fields", line))
    if len(found) != len(CODECS) * len(NAMES):
        sys.exit(f"error: {len(found)} records of calls in server.log, not {len(CODECS) * len(NAMES)}")
    return found


def score(job):
    codec, kind, name = job
    said, heard = read(f"{name}.wav"), read(f"{codec}-{kind}-{name}.wav")
    begin = 0
    if kind == "call":
        begin = max(0, round(call(codec, name)["echo"]["delayMillis"] * RATE / 1000) - BEFORE)
    return pesq(RATE, said, heard[begin : begin + len(said) + AFTER], "nb")


def main():
    kinds = ["call", "alone"]
    jobs = [(codec, kind, name) for codec in CODECS for kind in kinds for name in NAMES]
    with Pool() as pool:
        scores = dict(zip(jobs, pool.map(score, jobs, chunksize=1)))
    told = records()
    print("| codec | set-up | echo | lost | PESQ of the calls | the codec alone |")
    print("| --- | --- | --- | --- | --- | --- |")
    for codec in CODECS:
        calls = [call(codec, name) for name in NAMES]
        setup = [one["setupMillis"] for one in calls]
        delay = [one["echo"]["delayMillis"] for one in calls]
        lost = sum(one["packetsLost"] for one in calls)
        lost += sum(one["packets_lost"] for one in told if one["codec"].lower() == calls[0]["codec"].lower())
        cells = []
        for kind in kinds:
            values = [scores[codec, kind, name] for name in NAMES]
            cells.append(f"{mean(values):.2f} / {min(values):.2f}")
        print(
            f"| {codec} | {median(setup):.1f} / {max(setup):.1f} ms | {median(delay):.0f} / {max(delay):.0f} ms | {lost} | "
            f"**{cells[0]}** | {cells[1]} |"
        )


if __name__ == "__main__":
    main()
