"""Sparse dictionaries of the activations of audio models."""
