"""The tone that peers say, and how much of it there is in what they hear."""

import math

TONE = 600


def tone(begin, count, rate):
    """So many samples of the tone, from that one on."""
    step = 2 * math.pi * TONE / rate
    return [int(12_000 * math.sin(step * (begin + at))) for at in range(count)]


def judge(samples, rate):
    """The share of the tone in these samples, and how loud they are."""
    energy = sum(sample * sample for sample in samples)
    if not energy:
        return 0.0, 0.0
    step = 2 * math.pi * TONE / rate
    sine = sum(sample * math.sin(step * at) for at, sample in enumerate(samples))
    cosine = sum(sample * math.cos(step * at) for at, sample in enumerate(samples))
    share = 2 * (sine * sine + cosine * cosine) / (len(samples) * energy)
    return share, math.sqrt(energy / len(samples)) / 32_768
