"""TextGrids: the long and the short format hold the same, and what is not one is refused."""

import numpy as np
import pytest

from otoscope.audio.clip import Clip, Span
from otoscope.audio.textgrid import read_textgrid, with_textgrid
from otoscope.errors import AudioError

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.21
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.21
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.2
            text = ""
        intervals [2]:
            xmin = 0.2
            xmax = 0.55
            text = "say"
        intervals [3]:
            xmin = 0.55
            xmax = 1.0
            text = "the ""b"" [2]"
        intervals [4]:
            xmin = 1.0
            xmax = 1.21
            text = "now"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.21
        points: size = 1
        points [1]:
            number = 0.5
            mark = "7"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.21
        intervals: size = 2
        intervals [1]:
            xmin = 2e-1
            xmax = .3
            text = "S"
        intervals [2]:
            xmin = 0.3
            xmax = 0.55
            text = "spn"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.21
<exists>
3
"IntervalTier"
"words"
0
1.21
4
0
0.2
""
0.2
0.55
"say"
0.55
1.0
"the ""b"" [2]"
1.0
1.21
"now"
"TextTier"
"clicks"
0
1.21
1
0.5
"7"
"IntervalTier"
"phones"
0
1.21
2
0.2
0.3
"S"
0.3
0.55
"spn"
"""
WORDS = (Span(0.2, 0.55, "say"), Span(0.55, 1.0, 'the "b" [2]'), Span(1.0, 1.21, "now"))
CLIP = Clip(np.ones(19200), 16000)


def saved(folder, text, encoding="utf-8"):
    (folder / "a.TextGrid").write_text(text, encoding=encoding)
    return folder / "a.TextGrid"


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_both_formats_and_every_encoding_hold_the_same(tmp_path, text, encoding):
    tiers = read_textgrid(saved(tmp_path, text, encoding))
    assert tiers == {"words": WORDS, "phones": (Span(0.2, 0.3, "S"),)}


def test_a_clip_takes_words_phones_and_text_and_a_rounded_end(tmp_path):
    clip = with_textgrid(CLIP, saved(tmp_path, LONG))
    assert clip.words[:2] == WORDS[:2]
    assert clip.words[2].end == CLIP.duration == 1.2
    assert clip.text == 'say the "b" [2] now'
    assert with_textgrid(CLIP.replace(text="mine"), saved(tmp_path, LONG)).text == "mine"


def test_tiers_named_by_speaker_are_found_and_two_speakers_refused(tmp_path):
    one = LONG.replace('"words"', '"anna - words"').replace('"phones"', '"anna - phones"')
    assert with_textgrid(CLIP, saved(tmp_path, one)).words[:2] == WORDS[:2]
    two = LONG.replace('"words"', '"anna - words"').replace('"phones"', '"bert - words"')
    with pytest.raises(AudioError, match="several speakers"):
        with_textgrid(CLIP, saved(tmp_path, two))


@pytest.mark.parametrize("text", ["", "hello", LONG[: len(LONG) // 2], LONG.replace("xmax = .3", "xmax = .1"), "1 2 3"])
def test_what_is_no_textgrid_is_refused(tmp_path, text):
    with pytest.raises(AudioError, match="is not a whole TextGrid"):
        read_textgrid(saved(tmp_path, text))


def test_missing_file_missing_tier_and_wrong_recording(tmp_path):
    with pytest.raises(AudioError, match="no readable TextGrid"):
        read_textgrid(tmp_path / "no.TextGrid")
    with pytest.raises(AudioError, match=r"no tier 'words' or 'phones' \(it has w, p\)"):
        with_textgrid(CLIP, saved(tmp_path, LONG.replace('"words"', '"w"').replace('"phones"', '"p"')))
    with pytest.raises(AudioError, match=r"ends at 0\.550 s but the sound at 0\.500 s"):
        with_textgrid(CLIP.slice(0, 0.5), saved(tmp_path, LONG))
