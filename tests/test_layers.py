"""Imports look down only, and the public names are what they say."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import adv_lightning

PACKAGE = Path(adv_lightning.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "__pycache__")

# A layer imports itself and what stands further left; those in one place do not know each other.
LAYERS = [
    {"metrics", "attacks", "models", "data", "losses"},
    {"methods"},
    {"module"},
    {"callbacks"},
    {"evaluation"},
    {"cli"},
    {"paper"},
]
# The front door: it names everything, and imports it only when asked.
FRONT = {"__init__", "__main__"}
WITHOUT_LIGHTNING = {"metrics", "attacks", "models", "methods", "losses"}


def part(path: Path) -> str:
    """The part of the package that a file belongs to: a folder or a module at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, wherever it does so."""
    found: set[str] = set()
    package = ".".join(path.relative_to(PACKAGE.parent).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            module = ".".join(name for name in (base, node.module) if name)
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def own_parts(names: set[str]) -> set[str]:
    """The parts of the package among dotted names."""
    known = set().union(*LAYERS)
    return {name.split(".")[1] for name in names if name.startswith("adv_lightning.")} & known


def test_every_file_has_a_layer() -> None:
    assert {part(path) for path in FILES} <= set().union(FRONT, *LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_look_down(path: Path) -> None:
    if part(path) in FRONT:
        return
    height = next(i for i, layer in enumerate(LAYERS) if part(path) in layer)
    allowed = set().union(*LAYERS[:height]) | (LAYERS[height] if height else {part(path)})
    assert own_parts(imports(path)) - allowed == set()


@pytest.mark.parametrize("folder", sorted(WITHOUT_LIGHTNING))
def test_the_lowest_layers_know_no_lightning(folder: str) -> None:
    files = [path for path in FILES if part(path) == folder]
    assert files
    for path in files:
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"lightning", "pytorch_lightning", "lightning_fabric", "jsonargparse"}, path


def run(code: str) -> set[str]:
    """The modules that are imported after `code` has run in a process of its own."""
    code += "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_no_torch() -> None:
    modules = run("import adv_lightning; dir(adv_lightning); adv_lightning.__version__")
    assert not {name.split(".")[0] for name in modules} & {"torch", "lightning", "torchvision", "jsonargparse"}


def test_attacks_models_and_metrics_work_without_lightning() -> None:
    code = "import sys; sys.modules['lightning'] = None; sys.modules['pytorch_lightning'] = None; "
    code += "import adv_lightning.attacks, adv_lightning.models, adv_lightning.metrics, adv_lightning.losses"
    assert "adv_lightning.models" in run(code)


@pytest.mark.parametrize("name", adv_lightning.__all__)
def test_every_public_name_resolves_to_its_home(name: str) -> None:
    thing = getattr(adv_lightning, name)
    assert thing.__name__ == name
    assert name in dir(adv_lightning)


def test_the_stub_names_each_home() -> None:
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(homes) == sorted(adv_lightning.__all__)
    for name, home in homes.items():
        assert getattr(importlib.import_module(f"adv_lightning.{home}"), name) is getattr(adv_lightning, name)


def test_no_file_is_long_without_a_reason() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 250:
            assert "lines:" in (ast.get_docstring(ast.parse(text)) or ""), (
                f"{path}: say in the docstring why it is long"
            )


def test_the_module_needs_no_heavy_library() -> None:
    # Lightning and torchmetrics import some of them where they are installed, so they are blocked, not looked for.
    blocked = ("torchvision", "sklearn", "matplotlib", "scipy", "jinja2", "PIL", "tensorboard")
    code = "import sys; " + "; ".join(f"sys.modules['{name}'] = None" for name in blocked)
    run(f"{code}; import adv_lightning.module, adv_lightning.callbacks")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'adv_lightning' has no attribute 'Nothing'"):
        _ = adv_lightning.Nothing


@pytest.mark.parametrize(
    "name", sorted(".".join(p.parent.relative_to(PACKAGE.parent).parts) for p in FILES if p.name == "__init__.py")
)
def test_every_package_lists_its_names_in_order(name: str) -> None:
    package = importlib.import_module(name)
    # Constants, then classes, then functions, each in order, as ruff sorts them.
    assert list(package.__all__) == sorted(package.__all__, key=_kind)
    assert all(hasattr(package, public) for public in package.__all__)


def _kind(name: str) -> tuple[int, str]:
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)
