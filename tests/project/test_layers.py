"""Imports look down only, public names are where they say, and files are short."""

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

# A layer imports the layers above it in this list; the parts of the first one do not know each other.
LAYERS = [
    {"metrics", "attacks", "models", "data", "losses"},
    {"methods", "tensor_arguments"},
    {"module"},
    {"callbacks"},
    {"evaluation"},
    {"cli"},
    {"paper"},
]
PARTS = set().union(*LAYERS)
# These name everything and import it only when asked.
FRONT = {"__init__", "__main__"}
WITHOUT_LIGHTNING = {"metrics", "attacks", "models", "methods", "losses"}


def part(path: Path) -> str:
    """The top-level folder or module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, inside functions too."""
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


def reached(path: Path) -> set[str]:
    """The parts of the package that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("adv_lightning.")} & PARTS


def test_every_file_has_a_layer() -> None:
    assert {part(path) for path in FILES} <= FRONT | PARTS


def test_imports_look_down() -> None:
    wrong = {}
    for path in FILES:
        if part(path) not in FRONT:
            height = next(i for i, layer in enumerate(LAYERS) if part(path) in layer)
            allowed = set().union(*LAYERS[:height], {part(path)})
            wrong[path] = reached(path) - allowed
    assert {path: found for path, found in wrong.items() if found} == {}


def test_lower_layers_import_no_lightning() -> None:
    files = [path for path in FILES if part(path) in WITHOUT_LIGHTNING]
    assert {part(path) for path in files} == WITHOUT_LIGHTNING
    barred = {"lightning", "pytorch_lightning", "lightning_fabric", "jsonargparse"}
    wrong = {path: {name.split(".")[0] for name in imports(path)} & barred for path in files}
    assert {path: found for path, found in wrong.items() if found} == {}


def run(code: str) -> set[str]:
    """The modules that are imported after `code` has run in a process of its own."""
    code += "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


# torchmetrics looks for a library's metadata, and imports what it finds.
WITHOUT = """
import sys
from importlib import metadata

def version(name, found=metadata.version):
    if name in {names}:
        raise metadata.PackageNotFoundError(name)
    return found(name)

metadata.version = version
sys.modules.update(dict.fromkeys({names}))"""


def without(*names: str) -> str:
    """Code that makes these libraries look as if they were not installed."""
    return WITHOUT.format(names=names)


def test_package_imports_no_torch() -> None:
    modules = run("import adv_lightning; dir(adv_lightning); adv_lightning.__version__")
    assert not {name.split(".")[0] for name in modules} & {"torch", "lightning", "torchvision", "jsonargparse"}


@pytest.mark.slow
def test_lower_layers_run_without_lightning() -> None:
    code = without("lightning", "pytorch_lightning")
    assert "adv_lightning.models" in run(f"{code}; from adv_lightning import attacks, models, metrics, methods, losses")


@pytest.mark.slow
def test_module_needs_no_heavy_library() -> None:
    # Lightning and torchmetrics import some of them if they are installed, so they are hidden, not looked for.
    code = without("torchvision", "sklearn", "matplotlib", "scipy", "jinja2", "PIL", "tensorboard")
    run(f"{code}; import adv_lightning.module, adv_lightning.callbacks, adv_lightning.models")


def test_public_names() -> None:
    listed = dir(adv_lightning)
    for name in adv_lightning.__all__:
        assert getattr(adv_lightning, name).__name__ == name
        assert name in listed


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        _ = adv_lightning.Nothing


def test_stub_names_each_home() -> None:
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    homes = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    modules = [importlib.import_module(f"adv_lightning.{home}") for home in homes]
    names = {name: getattr(module, name) for module in modules for name in module.__all__}
    assert names == {name: getattr(adv_lightning, name) for name in adv_lightning.__all__}


def test_packages_list_their_names() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            package = importlib.import_module(".".join(path.parent.relative_to(PACKAGE.parent).parts))
            assert len(set(package.__all__)) == len(package.__all__), package
            assert [name for name in package.__all__ if not hasattr(package, name)] == [], package


def test_long_files_say_why() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in FILES}
    long = [path for path, text in texts.items() if len(text.splitlines()) > 250]
    silent = [path for path in long if "Length:" not in (ast.get_docstring(ast.parse(texts[path])) or "")]
    assert silent == [], "cut these files, or give the reason after 'Length:' in the module's docstring"
