"""Sparse autoencoders of audio models. Its commands take --json and --out DIR.

Example: otoscope sae import some/dictionary --out runs/sae
"""

#: subcommand -> what it is for
COMMANDS = {
    "import": "read a dictionary of SAELens, sparsify or dictionary_learning",
    "publish": "write a folder for the Hugging Face Hub, and upload it when asked",
}
