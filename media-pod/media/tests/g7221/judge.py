#!/usr/bin/env python3
"""The ITU's own G.722.1: the fixed-point program of the recommendation as PJSIP builds it, in a library of the package pjsua2-pybind11.

    judge.py encode BYTES               sound from standard input, frames of so many bytes to standard output
    judge.py decode BYTES [LOST...]     frames to sound; those with these numbers, from 0, are lost

Sound is 16-bit linear, little endian, 16,000 samples per second.
"""

import ctypes
import sys
import sysconfig
from pathlib import Path

SAMPLES = 320
REGIONS = 14


class Bits(ctypes.Structure):
    """Bit_Obj of the program's defs.h."""

    _fields_ = [
        ("count", ctypes.c_int16),
        ("word", ctypes.c_int16),
        ("at", ctypes.POINTER(ctypes.c_int16)),
        ("left", ctypes.c_int16),
        ("next", ctypes.c_int16),
    ]


def library():
    folder = Path(sysconfig.get_path("purelib")) / "pjsua2_pybind11.libs"
    found = list(folder.glob("libg7221codec-*.so*"))
    if len(found) != 1:
        sys.exit(f"error: there is no libg7221codec in {folder}")
    return ctypes.CDLL(str(found[0]))


def chunks(data, size):
    if len(data) % size:
        sys.exit(f"error: {len(data)} bytes are not whole frames of {size}")
    return (data[at : at + size] for at in range(0, len(data), size))


def encode(program, size, sound):
    before = (ctypes.c_int16 * SAMPLES)()
    coefficients = (ctypes.c_int16 * SAMPLES)()
    words = (ctypes.c_int16 * (size // 2))()
    for frame in chunks(sound, 2 * SAMPLES):
        now = (ctypes.c_int16 * SAMPLES).from_buffer_copy(frame)
        shift = program.samples_to_rmlt_coefs(now, before, coefficients, SAMPLES)
        program.encoder(8 * size, REGIONS, coefficients, ctypes.c_int16(shift), words)
        yield b"".join((word & 0xFFFF).to_bytes(2, "big") for word in words)


def decode(program, size, frames, lost):
    noise = (ctypes.c_int16 * 4)(1, 1, 1, 1)
    coefficients = (ctypes.c_int16 * SAMPLES)()
    last = (ctypes.c_int16 * SAMPLES)()
    left = (ctypes.c_int16 * SAMPLES)()
    sound = (ctypes.c_int16 * SAMPLES)()
    shift, last_shift = ctypes.c_int16(0), ctypes.c_int16(0)
    for number, frame in enumerate(chunks(frames, size)):
        words = (int.from_bytes(word, "big") for word in chunks(frame, 2))
        # It may read beyond the end of a frame that is damaged.
        words = (ctypes.c_int16 * (size // 2 + 64))(*words)
        bits = Bits(0, 0, ctypes.cast(words, ctypes.POINTER(ctypes.c_int16)), 8 * size, 0)
        program.decoder(
            ctypes.byref(bits),
            noise,
            REGIONS,
            coefficients,
            ctypes.byref(shift),
            ctypes.byref(last_shift),
            last,
            ctypes.c_int16(number in lost),
        )
        program.rmlt_coefs_to_samples(coefficients, left, sound, SAMPLES, shift)
        yield bytes(sound)


def main():
    what, size = sys.argv[1], int(sys.argv[2])
    data = sys.stdin.buffer.read()
    if what == "encode":
        made = encode(library(), size, data)
    else:
        made = decode(library(), size, data, {int(number) for number in sys.argv[3:]})
    sys.stdout.buffer.write(b"".join(made))


main()
