"""Change the length of speech without its pitch: WSOLA (Verhelst and Roelands 1993)."""

import numpy as np
from jaxtyping import Float

#: Length of a frame and largest shift in search of a matching waveform, seconds.
FRAME = 0.030
SEARCH = 0.010


def stretched(samples: Float[np.ndarray, " n"], length: int, rate: int) -> Float[np.ndarray, " length"]:
    """Exactly ``length`` samples of the same speech at the same pitch, float64.

    Frames with a Hann window are laid down at even distances; each is taken near the place that its time maps to,
    where it continues the previous frame best (largest normalised correlation). Unchanged when the length is the same.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if length == len(samples):
        return samples.copy()
    hop = max(1, round(FRAME * rate / 2))
    search = round(SEARCH * rate)
    window = 0.5 - 0.5 * np.cos(np.pi * (np.arange(2 * hop) + 0.5) / hop)
    # room on both sides, so that each frame and its search range exist
    margin = hop + search
    padded = np.pad(samples, (margin, margin + 2 * hop + search))
    count = -(-length // hop) + 1
    out, total = np.zeros((count + 1) * hop), np.zeros((count + 1) * hop)
    taken = None
    for index in range(count):
        # frame `index` is centred on output sample index * hop; its middle maps linearly to the input
        wanted = round(min(index * hop / length, 1.0) * len(samples)) - hop + margin
        if taken is None:
            taken = wanted
        else:
            goes_on = padded[taken + hop : taken + 3 * hop]
            low = max(0, wanted - search)
            high = min(len(padded) - 2 * hop, wanted + search)
            taken = low + _best_match(goes_on, padded[low : high + 2 * hop])
        out[index * hop : (index + 2) * hop] += window * padded[taken : taken + 2 * hop]
        total[index * hop : (index + 2) * hop] += window
    return (out / np.maximum(total, 1e-3))[hop : hop + length]


def _best_match(frame: Float[np.ndarray, " frame"], field: Float[np.ndarray, " field"]) -> int:
    """Offset at which ``field`` resembles ``frame`` most, by normalised correlation."""
    frame = np.pad(frame, (0, max(0, min(len(field), len(frame)) - len(frame))))[: len(field)]
    dots = np.correlate(field, frame, mode="valid")
    energy = np.concatenate(([0.0], np.cumsum(np.square(field))))
    norms = np.sqrt(np.maximum(energy[len(frame) :] - energy[: -len(frame)], 0.0)) + 1e-9
    return int(np.argmax(dots / norms))
