"""Readers of public corpora as they are distributed, one file each; none decodes a sound before it is drawn."""
