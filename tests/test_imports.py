"""What `import safegraph` and `safegraph --help` load, and what the package offers by name."""

import ast
import inspect
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import safegraph

ROOT = Path(__file__).parent.parent
HEAVY = {"egglog", "onnx", "onnx_ir", "onnxruntime", "sympy", "torch"}
HELP = """
import sys
from safegraph.cli import main
sys.argv = ["safegraph", "--help"]
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
"""


def modules_loaded_by(code: str) -> set[str]:
    """Names in `sys.modules` after `code` has run in a fresh interpreter."""
    code += "\nimport sys; print('\\nloaded:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("code", ["import safegraph", HELP], ids=["import", "help"])
def test_nothing_heavy_is_loaded(code: str):
    loaded = modules_loaded_by(code)
    assert "safegraph" in loaded
    assert not HEAVY & loaded


def test_the_check_sees_what_is_loaded():
    assert "sympy" in modules_loaded_by("import sympy")


@pytest.mark.parametrize("name", safegraph.__all__)
def test_every_public_name_resolves_and_is_documented(name: str):
    value = getattr(safegraph, name)
    assert name in dir(safegraph)
    assert name == "__version__" or inspect.getdoc(value)


def test_type_checkers_see_the_public_names_where_they_are():
    tree = ast.parse(inspect.getsource(safegraph))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {name: safegraph._HOMES[name] for name in safegraph.__all__[1:]}


@pytest.mark.parametrize("name", safegraph.__all__)
def test_no_public_name_hides_a_module(name: str):
    # Importing safegraph.dims sets the attribute: a function of that name would be lost.
    assert find_spec(f"safegraph.{name}") is None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'SafeDog'"):
        _ = safegraph.SafeDog


def test_no_generic_name_is_imported():
    import safegraph.extract
    import safegraph.frontends
    import safegraph.rules  # noqa: F401

    assert not {"rules", "frontends", "extract"} & set(sys.modules)
