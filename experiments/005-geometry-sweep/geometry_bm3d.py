"""BM3D (Dabov et al. 2007), by the package bm3d, which is optional: its licence permits no commercial use."""

import hashlib
import statistics
from importlib.metadata import version

import numpy as np
import torch
from geometry_plan import SPLITS, build_setup, final_overrides

from scratch_dl.data import metrics
from scratch_dl.training import checkpoint


def denoise_with_bm3d(photographs, noise, cache):
    """Return (sigma, output) for each photograph, or None without the package.

    The colour version, bm3d_rgb at its defaults. sigma is the noise's own if it has one, otherwise what scikit-image
    estimates from the picture, as for the baselines.

    Args:
        photographs: with noise.
        noise: that they have.
        cache: the folder in which the outputs are kept.
    """
    try:
        import bm3d
    except ImportError:
        return None
    from skimage.restoration import estimate_sigma

    results = []
    for photograph in photographs:
        picture = photograph.noisy.permute(1, 2, 0).double().numpy()
        sigma = float(getattr(noise, "std", None) or np.mean(estimate_sigma(picture, channel_axis=2)))
        key = hashlib.sha256(f"{version('bm3d')} {sigma} {picture.shape}".encode() + picture.tobytes()).hexdigest()
        path = cache / f"bm3d-{key[:16]}.pt"
        if not path.is_file():
            print(f"BM3D: {photograph.name}, {noise.name}, sigma {255 * sigma:.1f} / 255", flush=True)
            output = np.ascontiguousarray(bm3d.bm3d_rgb(picture, sigma).transpose(2, 0, 1), dtype=np.float32)
            checkpoint.save(path, {"output": torch.from_numpy(output)})
        results.append((sigma, checkpoint.load(path)["output"].clamp(0, 1)))
    return results


def score_bm3d(noises, smoke, directory):
    """Return its mean PSNR and the sigmas it was given, by "noise split"; None instead without the package."""
    scores = {}
    for noise in noises:
        data = build_setup(final_overrides("paper", noise, smoke)).data
        for split in SPLITS:
            photographs = data.photographs(split)
            results = denoise_with_bm3d(photographs, data.noise, directory / "cache")
            scores[f"{noise} {split}"] = results and {
                "psnr_db": statistics.mean(
                    metrics.psnr_db(output[None], photograph.clean[None])
                    for (_, output), photograph in zip(results, photographs, strict=True)
                ),
                "sigma": [sigma for sigma, _ in results],
            }
    return scores
