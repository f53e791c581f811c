"""Sparse autoencoders of audio models. Its commands take --json and --out DIR.

Example: otoscope sae train activations --arch topk --width 8x --k 32 --out runs/sae
"""

#: subcommand -> what it is for
COMMANDS = {
    "harvest": "store a site's activations over recordings",
    "train": "train a sparse dictionary on them",
    "eval": "AudioSAEBench: measure a dictionary beside trivial rivals",
    "import": "read a dictionary of SAELens, sparsify or dictionary_learning",
    "view": "write pages that show and play its features",
    "steer": "turn a feature up while a model transcribes",
    "paper": "compare kinds of dictionaries: does a temporal loss help?",
    "publish": "write a folder for the Hugging Face Hub, and upload it when asked",
}
