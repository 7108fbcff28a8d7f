"""The ITU's own G.722.1: the fixed-point program of the recommendation as PJSIP builds it, in a library of the package pjsua2-pybind11.

Sound is 16-bit linear, little endian, 16,000 samples per second.
"""

import ctypes
from ctypes import POINTER, Structure, byref, c_int16

SAMPLES = 320
REGIONS = 14

Sound = c_int16 * SAMPLES


class Bits(Structure):
    """Bit_Obj of the program's defs.h."""

    _fields_ = [("count", c_int16), ("word", c_int16), ("at", POINTER(c_int16)), ("left", c_int16), ("next", c_int16)]


def library(packages):
    """The program, in a folder of Python packages."""
    found = list((packages / "pjsua2_pybind11.libs").glob("libg7221codec-*.so*"))
    if len(found) != 1:
        raise SystemExit(f"error: there is no libg7221codec in {packages}")
    return ctypes.CDLL(str(found[0]))


def swapped(data):
    """16-bit words with their octets the other way round."""
    turned = bytearray(data)
    turned[::2], turned[1::2] = data[1::2], data[::2]
    return turned


class Stream:
    """A coder and a decoder with frames of so many bytes."""

    def __init__(self, program, size):
        self.program = program
        self.size = size
        self.said, self.heard, self.last = Sound(), Sound(), Sound()
        self.shift = c_int16(0)
        self.noise = (c_int16 * 4)(1, 1, 1, 1)

    def encode(self, sound):
        """The frame of 20 ms."""
        coefficients = Sound()
        words = (c_int16 * (self.size // 2))()
        shift = self.program.samples_to_rmlt_coefs(Sound.from_buffer_copy(sound), self.said, coefficients, SAMPLES)
        self.program.encoder(8 * self.size, REGIONS, coefficients, c_int16(shift), words)
        return bytes(swapped(bytes(words)))

    def decode(self, frame):
        """20 ms of sound. Without a frame it is that of a lost one."""
        # It may read beyond the end of a frame that is damaged.
        words = (c_int16 * (self.size // 2 + 64)).from_buffer(swapped(frame or bytes(self.size)) + bytes(128))
        bits = Bits(0, 0, ctypes.cast(words, POINTER(c_int16)), 8 * self.size, 0)
        coefficients, sound, shift = Sound(), Sound(), c_int16(0)
        self.program.decoder(
            byref(bits),
            self.noise,
            REGIONS,
            coefficients,
            byref(shift),
            byref(self.shift),
            self.last,
            c_int16(frame is None),
        )
        self.program.rmlt_coefs_to_samples(coefficients, self.heard, sound, SAMPLES, shift)
        return bytes(sound)
