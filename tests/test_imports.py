"""The floors of the house: who may import whom, and what must stay cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxgain"
FLOORS = (  # a file imports only from its own floor or from those before it
    "grammar",
    "activations",
    "runs",  # imports nothing of ours, so that every later floor may use it
    "theory",
    "propagation",
    "initializers",
    "nn",
    "training",
    "probing",
    "figures",
    "cli",
    "experiments",
)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__"))


def floor_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Dotted names of ours that a file imports, below `jaxgain`."""
    package = ("jaxgain", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "jaxgain" else {module}
    return {name.removeprefix("jaxgain.") for name in names if name.startswith("jaxgain.")} - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_floors_at_or_above_its_own(path):
    own = floor_of(path)
    assert own in FLOORS, f"{own} is no floor of the house"
    above = FLOORS[: FLOORS.index(own) + 1]
    allowed = {"runs"} if own == "runs" else set(above)
    assert {name.split(".")[0] for name in imported(path)} <= allowed


def test_the_package_itself_is_imported_for_its_version_only():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "jaxgain":
                assert node.attr == "__version__", f"{path}: jaxgain.{node.attr}"


def modules_after(program: str) -> set[str]:
    """Top-level modules that a fresh Python has loaded after a program that may exit."""
    wrapped = (
        "import sys\n"
        f"try:\n    {program}\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('MODULES', *{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", wrapped], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()[1:])


HEAVY = {"jax", "jaxlib", "numpy", "xarray", "matplotlib", "scipy", "pandas"}


@pytest.mark.parametrize(
    "program",
    [
        "import jaxgain; dir(jaxgain)",
        "import jaxgain.grammar, jaxgain.activations; jaxgain.activations.activation('tanh(2x)')",
        "from jaxgain import SweepConfig; SweepConfig()",
        "from jaxgain import TrainConfig; TrainConfig()",
    ],
)
def test_names_and_configs_import_neither_jax_nor_numpy_nor_xarray(program):
    assert not modules_after(program) & HEAVY


@pytest.mark.parametrize("command", ["", "gain", "theory", "sweep", "train", "probe", "draw", "status"])
def test_help_imports_nothing_heavy(command):
    words = [command, "--help"] if command else ["--help"]
    # typeguard costs a tenth of a second, and tyro imports it for annotations such as tuple[str, ...]
    loaded = modules_after(f"from jaxgain.cli import main; main({words!r})")
    assert not loaded & (HEAVY | {"typeguard", "rich"})


def test_the_first_help_does_not_even_import_the_parser():
    assert "tyro" not in modules_after("from jaxgain.cli import main; main(['--help'])")


def test_every_public_name_is_there():
    import jaxgain

    for name in jaxgain.__all__:
        assert getattr(jaxgain, name) is not None
    assert callable(jaxgain.sweep)
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = jaxgain.sweeep
