"""Yardsticks: how far one factor of speech moved between two clips, each independent of the model under study."""
