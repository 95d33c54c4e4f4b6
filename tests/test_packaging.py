"""The import names, the folders and pyproject.toml agree, and so does what gets installed."""

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import safegraph

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
OUTER = ("rules", "frontends", "extract")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "safegraph", *OUTER)


def folders_with_python(top: Path, stop_at: tuple[str, ...] = ()) -> set[Path]:
    """Folders from `top` down that hold a Python file, relative to the repository."""
    found = {file.parent.relative_to(ROOT) for file in top.rglob("*.py")}
    return {folder for folder in found if not set(stop_at) & set(folder.parts)}


def test_every_folder_with_python_in_it_is_packaged():
    folders = folders_with_python(ROOT / "safegraph", stop_at=OUTER)
    expected = {".".join(folder.parts) for folder in folders}
    for top in OUTER:
        expected |= {
            ".".join(("safegraph", *folder.parts)) for folder in folders_with_python(ROOT / top)
        }
    assert set(SETUPTOOLS["packages"]) == expected


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_package_says_what_it_is(package: str):
    init = ROOT.joinpath(*package.split("."), "__init__.py")
    assert init.read_text().startswith('"""')


@pytest.mark.parametrize("top", OUTER)
def test_links_and_mapping_point_to_the_same_folder(top: str):
    assert SETUPTOOLS["package-dir"][f"safegraph.{top}"] == top
    link = ROOT / "safegraph" / top
    if not link.is_symlink():
        pytest.skip("a checkout without symbolic links")
    assert link.readlink() == Path("..") / top


def test_every_install_is_pinned():
    def name(requirement: str) -> str:
        return requirement.split(">")[0].split("=")[0].strip().lower().replace("_", "-")

    pinned = {
        name(line)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]
    assert {name(requirement) for requirement in wanted} <= pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves a build folder and reuses what is there."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                source / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
            )
        else:
            shutil.copy2(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_module_once_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    tops = {name.split("/")[0] for name in names}
    assert tops == {"safegraph", f"safegraph-{safegraph.__version__}.dist-info"}

    modules = {file.relative_to(ROOT) for file in (ROOT / "safegraph").glob("**/*.py")}
    modules = {module for module in modules if not set(OUTER) & set(module.parts)}
    for top in OUTER:
        modules |= {"safegraph" / file.relative_to(ROOT) for file in (ROOT / top).glob("**/*.py")}
    assert {Path(name) for name in names if name.endswith(".py")} == modules
    assert "safegraph/py.typed" in names


@pytest.mark.slow
def test_the_wheel_works_in_a_fresh_environment(wheel: Path, tmp_path: Path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    binaries = environment / ("Scripts" if sys.platform == "win32" else "bin")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    pip_install = (binaries / "python", "-m", "pip", "install", "--quiet")
    run(*pip_install, "--constraint", ROOT / "constraints.txt", wheel, cwd=elsewhere)

    # The core dependencies are all that is there: no torch, no onnx.
    importable = [name for name in SETUPTOOLS["packages"] if "torchscript" not in name]
    run(binaries / "python", "-c", f"import {', '.join(importable)}", cwd=elsewhere)
    for top in OUTER:
        with pytest.raises(AssertionError, match="ModuleNotFoundError"):
            run(binaries / "python", "-c", f"import {top}", cwd=elsewhere)

    assert "Usage: safegraph" in run(binaries / "safegraph", "--help", cwd=elsewhere)


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command, which must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout
