"""The five sweeps that are timed: which model, which two inputs, which patches, which two logits.

Every tool gets the same arrays (written once by ``prepare``, read by each worker) and answers with the same thing:
for patch i the logits of (answer, foil) at the last position, ``[n_patches, 2]`` float32. Denoising: the base run is
the corrupt one, and one activation at a time is replaced by that of the clean run.

| name | model | patches |
|---|---|---|
| E | Whisper tiny.en | encoder ``resid_post``, 4 layers x 25 windows of 60 frames, 2-token prompt |
| D | Whisper tiny.en | decoder, 4 layers x 8 positions x {resid_post, attn_out, cross_attn_out, mlp_out} |
| L | SmolLM2-135M-Instruct | ``resid_post``, 30 layers x 80 positions, inputs that differ at every position |
| L0 | SmolLM2-135M-Instruct | the same, but the inputs share their first 40 tokens |
| H | SmolLM2-135M-Instruct | head outputs ``z`` at the last position, 30 layers x 9 heads |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

WHISPER = "whisper-tiny.en"
LANGUAGE = "smollm2-135m-instruct"
MODEL_OF = {"E": WHISPER, "D": WHISPER, "L": LANGUAGE, "L0": LANGUAGE, "H": LANGUAGE}

ENCODER_FRAMES, WINDOW = 1500, 60
PROMPT = (50257, 50362)  # <|startoftranscript|> <|notimestamps|> of the English-only models
DECODER_TOKENS = 8
LM_TOKENS, SHARED_PREFIX = 80, 40
D_HEAD = 64  # of SmolLM2, whose z is 9 heads x 64
RATE = 16_000
RECORDING = Path(__file__).resolve().parents[2] / "shared" / "data" / "recordings" / "jfk.flac"

# Two paragraphs that differ from the first token on; each is longer than 80 tokens in SmolLM2's vocabulary.
TEXT_CLEAN = (
    "The old lighthouse keeper climbed the stairs every evening to light the lamp, because ships still passed the "
    "cape at night and the rocks below it had no mercy. One winter a storm broke the great lens, and for three weeks "
    "he kept a fire burning on the gallery instead, feeding it with driftwood, broken chairs and at last the door of "
    "his own kitchen. When the repair crew finally arrived from the mainland, they asked him why he had not simply "
    "left, and he said that a light is a promise to the people out at sea, and nobody should break a"
)
TEXT_CORRUPT = (
    "In our village a young baker woke at three to heat her oven, since farmers wanted bread before dawn and the "
    "market would not wait. During one autumn her flour was damp, so through six mornings she dried every sack over "
    "the coals, mixing by hand with rye, oats and finally some barley from a neighbour's barn. After her cousins came "
    "up the valley road to help, everyone wondered how any loaf had risen, but she told them it was patience, plus "
    "good yeast and a warm corner, which anyone can learn given enough time and one honest"
)


@dataclass(frozen=True)
class Patch:
    """One question of a sweep: replace this activation of the base run by the donor's.

    ``stack.layer.point`` is the site in otoscope's grammar; positions ``start`` to ``stop`` (frames or tokens) are
    replaced; ``head`` picks one head of ``z`` and is None for whole vectors.
    """

    stack: str
    layer: int
    point: str
    start: int
    stop: int
    head: int | None = None


@dataclass(frozen=True)
class Workload:
    """A sweep with its inputs.

    ``clean`` / ``corrupt``: log-mel ``[1, 80, 3000]`` float32 for Whisper, token ids ``[1, pos]`` int64 for the
    language model. ``tokens``: Whisper's decoder tokens ``[1, pos]``, the same on both sides; None otherwise.
    ``n_samples``: true length of the sounds at 16 kHz; 0 for the language model.
    """

    name: str
    model: str
    patches: tuple[Patch, ...]
    clean: np.ndarray
    corrupt: np.ndarray
    tokens: np.ndarray | None
    answer: int
    foil: int
    n_samples: int = 0


def patches_of(name: str) -> tuple[Patch, ...]:
    """All patches of a workload, layer by layer."""
    last = LM_TOKENS - 1
    if name == "E":
        windows = range(0, ENCODER_FRAMES, WINDOW)
        return tuple(Patch("encoder", k, "resid_post", a, a + WINDOW) for k in range(4) for a in windows)
    if name == "D":
        points = ("resid_post", "attn_out", "cross_attn_out", "mlp_out")
        return tuple(
            Patch("decoder", k, point, i, i + 1) for k in range(4) for point in points for i in range(DECODER_TOKENS)
        )
    if name in ("L", "L0"):
        return tuple(Patch("decoder", k, "resid_post", i, i + 1) for k in range(30) for i in range(LM_TOKENS))
    if name == "H":
        return tuple(Patch("decoder", k, "z", last, last + 1, head) for k in range(30) for head in range(9))
    raise ValueError(f"unknown workload {name!r}; expected one of {', '.join(MODEL_OF)}")


def stratified(name: str, n_layers: int, per_layer: int | None = None, seed: int = 0) -> list[int]:
    """Indices of a declared subset of the patches, for peers whose full sweep takes many minutes.

    ``n_layers`` layers are taken at the middles of equal strata of depth, so that a cost linear in depth (entering
    at the patched layer) is estimated without bias; in each, ``per_layer`` patches drawn without replacement from
    equal strata of the layer's list (None: all of them, for peers that batch a layer).
    """
    patches = patches_of(name)
    depth = max(p.layer for p in patches) + 1
    edges = np.linspace(0, depth, n_layers + 1)
    chosen = {int((a + b - 1) // 2) if n_layers < depth else int(a) for a, b in zip(edges[:-1], edges[1:])}
    rng = np.random.default_rng(seed)
    indices: list[int] = []
    for layer in sorted(chosen):
        members = [i for i, p in enumerate(patches) if p.layer == layer]
        if per_layer is None or per_layer >= len(members):
            indices += members
        else:
            indices += sorted(int(rng.choice(part)) for part in np.array_split(members, per_layer))
    return indices


def _sounds() -> tuple[np.ndarray, np.ndarray]:
    """Two equally long sounds, float32 at 16 kHz: speech, and the same with its first 2.5 s overwritten by noise."""
    rng = np.random.default_rng(0)
    if RECORDING.exists():
        import soundfile
        import soxr

        samples, rate = soundfile.read(RECORDING, dtype="float32", always_2d=True)
        clean = soxr.resample(samples.mean(axis=1), rate, RATE).astype(np.float32)
    else:  # a voiced, syllable-rate modulated harmonic sound: not speech, but not degenerate either
        t = np.arange(11 * RATE) / RATE
        pitch = np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE
        voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20))
        clean = (0.1 * voice * np.clip(np.sin(2 * np.pi * 3.5 * t), 0, None)).astype(np.float32)
    corrupt = clean.copy()
    span = slice(0, int(2.5 * RATE))
    level = float(np.sqrt(np.mean(clean[span] ** 2)))
    corrupt[span] = rng.normal(0, level, span.stop).astype(np.float32)
    return clean, corrupt


def _answer_and_foil(clean: np.ndarray, corrupt: np.ndarray) -> tuple[int, int]:
    """What the clean run says, and what the corrupt run says instead (its second choice when they agree)."""
    answer = int(clean.argmax())
    first, second = np.argsort(corrupt)[::-1][:2]
    return answer, int(first if first != answer else second)


def _prepare_whisper(folder: Path, out: Path) -> None:
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    extract = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    sounds = _sounds()
    features = [extract(s, sampling_rate=RATE, return_tensors="np").input_features for s in sounds]
    clean, corrupt = (torch.from_numpy(f) for f in features)
    tokens = torch.tensor([PROMPT])
    with torch.no_grad():
        state = model.model.encoder(clean)
        for length in (len(PROMPT), DECODER_TOKENS):
            while tokens.shape[1] < length:  # greedy: what the clean run says is what both are forced to read
                step = model(encoder_outputs=state, decoder_input_ids=tokens).logits[:, -1:].argmax(-1)
                tokens = torch.cat([tokens, step], dim=1)
            logits = [model(x, decoder_input_ids=tokens).logits[0, -1].numpy() for x in (clean, corrupt)]
            answer, foil = _answer_and_foil(*logits)
            name = "E" if length == len(PROMPT) else "D"
            np.savez(
                out / f"{name}.npz",
                clean=features[0],
                corrupt=features[1],
                tokens=tokens.numpy(),
                n_samples=len(sounds[0]),
                answer=answer,
                foil=foil,
            )


def _prepare_language(folder: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if any(folder.glob("tokenizer*")):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        clean, other = (tokenizer(t, add_special_tokens=False).input_ids for t in (TEXT_CLEAN, TEXT_CORRUPT))
    else:  # random weights without a vocabulary: any tokens do
        clean, other = np.random.default_rng(0).integers(1000, 40_000, (2, 2 * LM_TOKENS)).tolist()
    if min(len(clean), len(other)) < LM_TOKENS:
        raise ValueError(f"the benchmark texts need {LM_TOKENS} tokens each, got {len(clean)} and {len(other)}")
    for name in ("L", "L0", "H"):
        base = clean[:SHARED_PREFIX] + other[SHARED_PREFIX:LM_TOKENS] if name == "L0" else other[:LM_TOKENS]
        pair = [np.array([clean[:LM_TOKENS]]), np.array([base])]
        with torch.no_grad():
            logits = [model(torch.from_numpy(ids)).logits[0, -1].numpy() for ids in pair]
        answer, foil = _answer_and_foil(*logits)
        np.savez(out / f"{name}.npz", clean=pair[0], corrupt=pair[1], answer=answer, foil=foil)


def prepare(model: str, folder: Path, out: Path) -> None:
    """Write the inputs of every workload of ``model`` (weights in ``folder``) into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    (_prepare_whisper if model == WHISPER else _prepare_language)(folder, out)


def read(name: str, folder: Path) -> Workload:
    """A workload whose inputs ``prepare`` wrote into ``folder``."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as data:
        return Workload(
            name=name,
            model=MODEL_OF[name],
            patches=patches_of(name),
            clean=data["clean"],
            corrupt=data["corrupt"],
            tokens=data.get("tokens"),
            answer=int(data["answer"]),
            foil=int(data["foil"]),
            n_samples=int(data.get("n_samples", 0)),
        )
