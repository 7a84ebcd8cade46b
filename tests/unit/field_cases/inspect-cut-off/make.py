"""Write a tiny checkpoint, and cut its weights in half: python make.py FOLDER."""

import sys
from pathlib import Path

from deckard_deploy.rehearsal import gemma4

folder = Path(sys.argv[1])
gemma4.write(folder)
weights = folder / "model.safetensors"
weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
