"""Sparse autoencoders: read public ones, train a small one, steer their features."""

from valign.methods.sae.method import SAE, feature_control
from valign.methods.sae.model import Fidelity, SAEFileError, SparseAutoencoder, fidelity
from valign.methods.sae.training import fit_sae, train_sae

__all__ = [
    "SAE",
    "Fidelity",
    "SAEFileError",
    "SparseAutoencoder",
    "feature_control",
    "fidelity",
    "fit_sae",
    "train_sae",
]
