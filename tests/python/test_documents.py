"""README, CONTRIBUTING and docs/: their links, paths, commands, code and tables are true.

A block of commands or code that no test can run has a comment before it: `<!-- not run: why -->`.
The C++ and CMake blocks of README are built by tests/consumer.
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import gemma_libtorch
import pytest
import tiny
from test_program import PROGRAM, output_of

ROOT = tiny.ROOT
REAL = ROOT / "checkpoints" / "gemma-3-270m"
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "checkpoints/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


class Block(NamedTuple):
    document: str
    line: int
    language: str
    code: str
    not_run: str | None


def blocks_of(document: Path) -> list[Block]:
    fence = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
    text = document.read_text()
    return [
        Block(
            str(document.relative_to(ROOT)),
            text.count("\n", 0, match.start(2)) + 1,
            match[2],
            match[3],
            match[1],
        )
        for match in fence.finditer(text)
    ]


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def test_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


# --- links and paths ------------------------------------------------------------------------------


@every_document
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", document.read_text())
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (document.parent / target).exists()] == []


# Files of gemma_pytorch whose folder has a name that one of ours has too.
OF_THE_REFERENCE = {"scripts/run.py"}


@every_document
def test_paths_exist(document: Path) -> None:
    folders = "bindings|cmake|docs|gemma|scripts|tests"
    found = re.findall(rf"(?<![\w./-])(?:\./)?((?:{folders})/[\w./*<>-]+)", document.read_text())
    paths = {path.rstrip(".>") for path in found} - OF_THE_REFERENCE
    missing = [path for path in paths if not list(ROOT.glob(re.sub(r"<\w+>?", "*", path)))]
    assert sorted(missing) == []


# --- blocks ---------------------------------------------------------------------------------------


def test_every_block_has_a_language_that_is_tested() -> None:
    languages = {block.language for block in BLOCKS}
    assert languages == {"sh", "python", "cpp", "cmake", ""}
    # An empty language is for text: names of files.
    assert [block for block in BLOCKS if block.language == "" and "gemma run" in block.code] == []
    built = [block for block in BLOCKS if block.language in ("cpp", "cmake")]
    assert [(block.document, block.language) for block in built] == [
        ("README.md", "cpp"), ("README.md", "cmake")
    ]  # fmt: skip
    assert "README.md" in (ROOT / "tests" / "consumer" / "run.sh").read_text()


def write_tiny_model(folder: Path) -> None:
    """A checkpoint that says what it is, of a model that int4 and q8_0 can hold."""
    fields = {
        **tiny.CONFIGS["gemma3"],
        "max_position_embeddings": 1024,
        "hidden_size": 64,
        "intermediate_size": 128,
        "head_dim": 32,
    }
    model = tiny.make_model(gemma_libtorch, fields, "float32")
    tiny.save_checkpoint(model, folder)


# What a variant's name means where only a tiny model is there.
TINY_VARIANTS = """
from gemma_libtorch import config
def get_model_config(variant, dtype="bfloat16"):
    found = config.GemmaConfig.from_pretrained("model.ckpt")
    found.dtype = dtype
    return found
config.get_model_config = get_model_config
"""


@pytest.fixture(params=["tiny", "270M"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder as the documents assume one: a model here, and where quickstart.sh makes it."""
    place = tmp_path / "checkpoints" / "gemma-3-270m"
    place.mkdir(parents=True)
    if request.param == "tiny":
        write_tiny_model(place)
    elif (REAL / "model.ckpt").exists():
        for name in ("model.ckpt", "tokenizer.model"):
            (place / name).symlink_to(REAL / name)
    else:
        pytest.skip("checkpoints/gemma-3-270m is not there: scripts/quickstart.sh makes it")
    for name in ("model.ckpt", "tokenizer.model"):
        (tmp_path / name).symlink_to(place / name)
    (tmp_path / "text.txt").write_text("It is a truth universally acknowledged.")
    return tmp_path


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language in ("sh", "python")],
    ids=lambda block: f"{block.document}:{block.line}",
)
def test_a_block_runs(block: Block, folder: Path) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    if block.language == "python":
        is_tiny = not (folder / "model.ckpt").resolve().is_relative_to(REAL.resolve())
        command = [sys.executable, "-c", (TINY_VARIANTS if is_tiny else "") + block.code]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.code]
    path = f"{PROGRAM.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    package = Path(gemma_libtorch.__file__).parents[1]
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(package)}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout or "convert" in block.code


# --- flags ----------------------------------------------------------------------------------------


def options_of(command: str) -> dict[str, str]:
    """The flags that `gemma COMMAND --help` lists, with the defaults that it shows."""
    found = {}
    for names, rest in re.findall(r"^ +(-[-\w,]+)(.*?)(?:  .*)?$", output_of(command, "--help"), re.M):
        default = re.search(r"^ [A-Z]+=(.*?)(?: [A-Z][a-z]+: .*)?$", rest)
        for name in names.split(","):
            found[name] = default[1] if default else ""
    return found


def test_the_table_of_flags_is_that_of_the_program() -> None:
    text = (ROOT / "docs" / "program.md").read_text()
    rows = re.findall(r"^\| (`--[^|]*)\|([^|]*)\|(.*)\|$", text, re.M)
    table = {flag: default.strip(" `") for names, default, _ in rows
             for flag in re.findall(r"--\w+", names)}  # fmt: skip
    real = options_of("run")
    assert {flag: real.get(flag) for flag in table} == table
    listed = {flag for flag in real if flag.startswith("--") and "-" not in flag[2:]}
    assert listed - {"--help"} == set(table)


def test_the_variants_of_the_table_are_those_that_exist() -> None:
    text = (ROOT / "docs" / "program.md").read_text()
    (row,) = re.findall(r"^\| `--variant` \| +\| (.*)$", text, re.M)
    names = re.findall(r"`([\w-]+)`", row.split(";")[0])
    assert sorted(names) == sorted(gemma_libtorch.config.model_variants())


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("bench.md", ["bench", "perplexity"]),
        ("checkpoints.md", ["convert", "run"]),
        ("hooks.md", ["activations", "run", "sae", "lens"]),
        ("server.md", ["serve", "run"]),
        ("program.md", ["run", "chat", "next", "convert", "bench", "perplexity", "info"]),
    ],
)
def test_every_flag_that_a_document_names_exists(name: str, commands: list[str]) -> None:
    text = (ROOT / "docs" / name).read_text()
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) | set(re.findall(r"`(-\w)`", text))
    known = {flag for command in commands for flag in options_of(command)}
    assert named - known - {"--help"} == set()


# --- deliberate differences -----------------------------------------------------------------------


def test_the_table_of_differences_has_a_row_for_each_comment() -> None:
    files = [path for folder in ("gemma", "bindings") for path in (ROOT / folder).rglob("*")
             if path.suffix in (".h", ".cc", ".py", ".pyi")]  # fmt: skip
    comments = collections.Counter(
        {str(path.relative_to(ROOT)): path.read_text().count("Differs from ") for path in files}
    )
    text = (ROOT / "docs" / "exact.md").read_text()
    rows = re.findall(r"^\|[^|]+\|[^|]+\| `((?:gemma|bindings)/[^`]+)` \|$", text, re.M)
    assert collections.Counter(rows) == +comments
