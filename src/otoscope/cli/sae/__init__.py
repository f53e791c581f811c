"""Sparse autoencoders of audio models."""

#: subcommand -> what it is for
COMMANDS = {
    "harvest": "store a site's activations over recordings",
    "train": "train a dictionary",
}
