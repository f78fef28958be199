"""Noisy and clean images: where they come from, and how they are made noisy."""

from scratch_dl.data.course import Course
from scratch_dl.data.dataset import DataError, DataSet, Photograph
from scratch_dl.data.folder import Folder, WholeFolder
from scratch_dl.data.noise import Gaussian, Noise, Pixelation, Poisson, Recorded, SaltPepper
from scratch_dl.data.photos import Photos
from scratch_dl.data.pictures import Pictures

__all__ = [
    "Course",
    "DataError",
    "DataSet",
    "Folder",
    "Gaussian",
    "Noise",
    "Photograph",
    "Photos",
    "Pictures",
    "Pixelation",
    "Poisson",
    "Recorded",
    "SaltPepper",
    "WholeFolder",
]
