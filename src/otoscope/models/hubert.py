"""HuBERT: the same sites and shapes as wav2vec2; base and CTC heads, post-LN (base) and pre-LN (large)."""

from otoscope.models.wav2vec2 import Wav2Vec2Adapter


class HubertAdapter(Wav2Vec2Adapter):
    """``HubertModel`` and ``HubertForCTC``."""

    family = "hubert"
