#!/usr/bin/env python3
"""Scores what jitter buffers played against what was sent (PESQ, ITU-T P.862, narrow band) and prints the table.

    score.py FOLDER     as `--test jitter_table -- --ignored` leaves it: sent.wav, parts.csv, runs.csv, a file for each run
"""

import csv
import sys
import wave
from multiprocessing import Pool
from pathlib import Path

import numpy
from pesq import pesq

RATE = 8000
# Longest delay that a buffer and the network together may have.
MARGIN = RATE * 3 // 10
# The network's own delay, which is cut off.
BASE = RATE * 4 // 100

FOLDER = Path(sys.argv[1])
BUFFERS = ["adaptive", "fixed", "fixed-silent", "fixed-alike"]


def read(name):
    with wave.open(str(FOLDER / name)) as file:
        return numpy.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def rows(name):
    with open(FOLDER / name, newline="") as file:
        return list(csv.reader(file))


def score(name):
    sent, played = read("sent.wav"), read(name)
    parts = [(int(begin), int(length)) for begin, length in rows("parts.csv")]
    scores = [
        pesq(RATE, sent[begin : begin + length], played[begin + BASE : begin + length + MARGIN], "nb")
        for begin, length in parts
    ]
    return sum(scores) / len(scores)


def main():
    runs = rows("runs.csv")
    with Pool() as pool:
        scores = pool.map(score, [run[-1] for run in runs], chunksize=1)
    table = {}
    for run, value in zip(runs, scores):
        jitter, loss, buffer, mean, p95, concealed = run[:6]
        cells = (float(mean), float(p95), float(concealed), value)
        table.setdefault((jitter, loss), {})[buffer] = cells
    print("| jitter | loss | adaptive | fixed 60 ms | fixed 60 ms, silence | fixed, adaptive's mean |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (jitter, loss), cells in table.items():
        line = [
            f"{mean:.0f} / {p95:.0f} ms, {concealed:.1f} %, **{value:.2f}**"
            for mean, p95, concealed, value in (cells[buffer] for buffer in BUFFERS)
        ]
        print(f"| {jitter} | {loss} | " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
