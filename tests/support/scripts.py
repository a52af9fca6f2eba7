"""Scripts of the project that are no package, imported from their files."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_script(path: Path) -> ModuleType:
    """The module in ``path``."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docker_module(name: str) -> ModuleType:
    """A module of docker/, whose files import each other by their bare names."""
    folder = str(ROOT / "docker")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
