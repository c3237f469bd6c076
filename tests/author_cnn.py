"""Weights and inputs of the golden data of the author's networks: every tensor depends on its key and shape alone."""

import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
LAYOUTS = json.loads((DATA / "author_cnn_keys.json").read_text())


def golden_outputs():
    """Outputs of the author's networks, float64 arrays by layout."""
    with np.load(DATA / "author_cnn_golden.npz") as archive:
        return dict(archive)


def fill(network):
    """Fill a network with the golden weights and put it into eval mode."""
    state = network.state_dict()
    for key, tensor in state.items():
        noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(tensor.shape))
        fan = math.prod(tensor.shape[1:])
        if tensor.ndim == 1:
            scale = 0.1
        elif tensor.ndim == 4:
            scale = math.sqrt(2 / fan)
        else:
            scale = (0.5 if ".fc1." in f".{key}" else 2.0) / math.sqrt(fan)
        state[key] = torch.from_numpy((scale * noise).astype(np.float32))
    network.load_state_dict(state)
    return network.eval()


def digest(network):
    """sha256 over the sorted keys and the bytes of their tensors."""
    total = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        total.update(key.encode() + tensor.numpy().tobytes())
    return total.hexdigest()


def shapes(network):
    """Key -> shape of a network, in order."""
    return {key: list(tensor.shape) for key, tensor in network.state_dict().items()}


def pictures():
    """Two pictures float32 [2, 3, 256, 256] in [0, 1]: white noise, and blocks with weak noise."""
    random = np.random.default_rng(256)
    noise = random.random((3, 256, 256))
    coarse = random.random((3, 16, 16))
    blocks = np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)
    blocks = np.clip(blocks + 0.1 * random.standard_normal((3, 256, 256)), 0, 1)
    return torch.from_numpy(np.stack([noise, blocks]).astype(np.float32))
