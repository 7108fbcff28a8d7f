#!/usr/bin/env python3
"""Codes and decodes with the ITU's G.722.1.

    judge.py encode BYTES               sound from standard input, frames of so many bytes to standard output
    judge.py decode BYTES [LOST...]     frames to sound; those with these numbers, from 0, are lost
"""

import sys
import sysconfig
from pathlib import Path

import itu


def chunks(data, size):
    if len(data) % size:
        sys.exit(f"error: {len(data)} bytes are not whole frames of {size}")
    return (data[at : at + size] for at in range(0, len(data), size))


def main():
    what, size = sys.argv[1], int(sys.argv[2])
    lost = {int(number) for number in sys.argv[3:]}
    data = sys.stdin.buffer.read()
    stream = itu.Stream(itu.library(Path(sysconfig.get_path("purelib"))), size)
    if what == "encode":
        made = map(stream.encode, chunks(data, 2 * itu.SAMPLES))
    else:
        frames = enumerate(chunks(data, size))
        made = (stream.decode(None if number in lost else frame) for number, frame in frames)
    sys.stdout.buffer.write(b"".join(made))


main()
