"""Makes the wheel: the package with its extension, libgemma.so and the program.

pip calls it (pyproject.toml): `pip wheel . --no-deps --no-build-isolation -w dist`, `pip install .`
With a folder that is built already: `make_wheel.py BUILD OUT`.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = PROJECT["name"].replace("-", "_")
INFO = f"{NAME}-{PROJECT['version']}.dist-info"


def tag() -> str:
    """An extension is for one version of Python; the libraries are those of the build's Linux."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{python}-{python}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def torch_requirement() -> str:
    """LibTorch's binary interface holds within a minor version."""
    major, minor, *_ = importlib.metadata.version("torch").split(".")
    return f"torch>={major}.{minor},<{major}.{int(minor) + 1}"


def metadata() -> dict[str, str]:
    """The files of the dist-info folder, but for RECORD."""
    scripts = "".join(f"{name} = {target}\n" for name, target in PROJECT["scripts"].items())
    return {
        "METADATA": f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n"
        f"Summary: {PROJECT['description']}\nLicense: {PROJECT['license']}\n"
        f"Requires-Python: {PROJECT['requires-python']}\nRequires-Dist: {torch_requirement()}\n"
        "Requires-External: libjpeg.so.62\nRequires-External: libpng16.so.16\n"
        "Requires-External: libedit.so.2\n"
        "Description-Content-Type: text/markdown\n\n" + (ROOT / PROJECT["readme"]).read_text(),
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: make_wheel\nRoot-Is-Purelib: false\nTag: {tag()}\n",
        "entry_points.txt": f"[console_scripts]\n{scripts}",
        "LICENSE": (ROOT / "LICENSE").read_text(),
    }


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None) -> str:
    """PEP 517. Without it pip would build twice."""
    folder = Path(metadata_directory, INFO)
    folder.mkdir()
    for name, text in metadata().items():
        (folder / name).write_text(text)
    return INFO


def cmake(*arguments: str | Path) -> None:
    """Runs the CMake of this Python's environment, which need not be on PATH; pip reads stdout."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["cmake", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr, env=os.environ | {"PATH": path})


def pack(build: Path, out: Path) -> str:
    """Writes the wheel of what `build` has built into `out`; returns its file name."""
    out.mkdir(parents=True, exist_ok=True)
    wheel = f"{NAME}-{PROJECT['version']}-{tag()}.whl"
    with tempfile.TemporaryDirectory(dir=out) as folder:
        stage = Path(folder, "stage")
        cmake("--install", build, "--component", "python", "--prefix", stage)
        prepare_metadata_for_build_wheel(stage)
        record = ""
        with zipfile.ZipFile(Path(folder, wheel), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zip:
            for path in sorted(p for p in stage.rglob("*") if p.is_file()):
                name, data = path.relative_to(stage).as_posix(), path.read_bytes()
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                record += f"{name},sha256={digest},{len(data)}\n"
                zip.write(path, name)
            zip.writestr(f"{INFO}/RECORD", f"{record}{INFO}/RECORD,,\n")
        os.replace(Path(folder, wheel), out / wheel)
    return wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """PEP 517. Shares build/release with scripts/quickstart.sh, unless another Python builds."""
    ours = Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()
    build = ROOT / "build" / ("release" if ours else f"wheel-{tag()}")
    cmake("--preset", "release", "-B", build, f"-DPython_EXECUTABLE={sys.executable}")
    cmake("--build", build, "--target", "gemma_cli", "gemma_python")
    return pack(build, Path(wheel_directory))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make_wheel.py BUILD OUT")
    print(pack(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
