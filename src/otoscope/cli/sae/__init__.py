"""Sparse autoencoders of audio models."""

#: subcommand -> what it is for
COMMANDS = {
    "harvest": "store a site's activations over recordings",
    "train": "train a dictionary",
    "import": "read a dictionary of SAELens, sparsify or dictionary_learning",
    "publish": "write a folder for the Hugging Face Hub, and upload it when asked",
}
