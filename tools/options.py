"""What a reader may set on the command line of make, read from the environment and checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .problems import Misuse

SCALES = ("laptop", "full")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Options:
    """One run's options; `None` or empty means: as the chapter has it."""

    chapters: tuple[str, ...] = ()
    scale: str | None = None
    seed: int | None = None
    device: str | None = None
    seeds: int = 5
    scheduler: str | None = None

    def parameters(self) -> dict[str, int | str]:
        """What was set of a chapter's parameters."""
        given = {"seed": self.seed, "scale": self.scale, "device": self.device}
        return {name: value for name, value in given.items() if value is not None}


def names(root: Path) -> tuple[str, ...]:
    """The chapters there are, by file stem.

    Raises:
        Misuse: there is none.
    """
    found = tuple(sorted(path.stem for path in (root / "chapters").glob("*.ipynb")))
    if not found:
        raise Misuse("chapters: found no notebook in chapters/")
    return found


def read(root: Path, environ: Mapping[str, str] = os.environ) -> Options:
    """The options in `environ`, every one checked.

    Raises:
        Misuse: names the variable, what it was and what is possible.
    """
    known, wanted = names(root), tuple(dict.fromkeys(environ.get("CHAPTERS", "").split()))
    for chapter in wanted:
        if chapter not in known:
            raise Misuse(f"CHAPTERS: got {chapter!r}, want some of {', '.join(known)}")
    device = _choice("DEVICE", environ, DEVICES)
    if device == "cuda":
        import torch  # takes seconds, and nobody else here needs it

        if not torch.cuda.is_available():
            raise Misuse("DEVICE: got 'cuda', want 'cpu' or 'auto': this machine has no usable CUDA device")
    scheduler = environ.get("SCHEDULER", "").strip() or None
    if scheduler and "://" not in scheduler:
        raise Misuse(f"SCHEDULER: got {scheduler!r}, want an address like tcp://host:8786")
    seeds = _whole("SEEDS", environ, least=1)
    return Options(
        chapters=wanted,
        scale=_choice("SCALE", environ, SCALES),
        seed=_whole("SEED", environ, least=0),
        device=device,
        seeds=Options.seeds if seeds is None else seeds,
        scheduler=scheduler,
    )


def _choice(name: str, environ: Mapping[str, str], possible: tuple[str, ...]) -> str | None:
    value = environ.get(name, "").strip()
    if value and value not in possible:
        raise Misuse(f"{name}: got {value!r}, want {' or '.join(possible)}")
    return value or None


def _whole(name: str, environ: Mapping[str, str], *, least: int) -> int | None:
    value = environ.get(name, "").strip()
    if value and not (value.isascii() and value.isdigit() and int(value) >= least):
        raise Misuse(f"{name}: got {value!r}, want a whole number >= {least}")
    return int(value) if value else None
