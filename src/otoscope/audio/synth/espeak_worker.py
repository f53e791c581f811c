"""One espeak-ng synthesis, as a process of its own.

The library keeps state between calls, so that the same text spoken twice in one process differs; and it is GPL-3, which
a process boundary keeps apart. This file is run by path and imports nothing but the standard library.

stdin: a JSON object with ``library``, ``data``, ``text``, ``voice``, ``speed`` (words per minute), ``pitch`` (0-99).
stdout: a line of JSON, ``{"error": ...}`` or ``{"rate", "events"}``, then the samples as little-endian int16.
An event is ``[kind, sample, text_position, length, name]`` with kind "word", "phone" or "end".
"""

import ctypes
import json
import sys

_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples through the callback, nothing is played
_PHONEME_EVENTS, _IPA, _DO_NOT_EXIT = 0x0001, 0x0002, 0x8000
_UTF8, _END_PAUSE = 1, 0x1000
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_KINDS = {1: "word", 5: "end", 7: "phone"}


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def synthesise(request: dict) -> tuple[dict, bytes]:
    """Header and samples for one request (see the module)."""
    library = ctypes.CDLL(request["library"])
    options = _PHONEME_EVENTS | _IPA | _DO_NOT_EXIT
    rate = library.espeak_Initialize(_RETRIEVAL, 0, request["data"].encode(), options)
    if rate <= 0:
        return {"error": f"espeak-ng did not start from {request['data']}"}, b""
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        return {"error": f"voice {request['voice']!r} is not known"}, b""
    library.espeak_SetParameter(_RATE, int(request["speed"]), 0)
    library.espeak_SetParameter(_PITCH, int(request["pitch"]), 0)
    chunks: list[bytes] = []
    events: list[list] = []

    @_CALLBACK
    def take(wave, count, event):
        if wave and count > 0:
            chunks.append(ctypes.string_at(wave, 2 * count))
        while event and event.contents.type:
            now = event.contents
            if now.type in _KINDS:
                # string is not terminated when the name has 8 bytes, so it is read by its size
                raw = bytes(memoryview(now.id).cast("B")[:8]) if now.type == 7 else b""
                name = raw.split(b"\0")[0].decode("utf-8", "replace")
                events.append([_KINDS[now.type], now.sample, now.text_position, now.length, name])
            event = ctypes.cast(ctypes.addressof(now) + ctypes.sizeof(_Event), ctypes.POINTER(_Event))
        return 0

    library.espeak_SetSynthCallback(take)
    text = request["text"].encode()
    library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 0, 0, _UTF8 | _END_PAUSE, None, None)
    library.espeak_Synchronize()
    return {"rate": rate, "events": events}, b"".join(chunks)


if __name__ == "__main__":
    header, samples = synthesise(json.load(sys.stdin))
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + samples)
