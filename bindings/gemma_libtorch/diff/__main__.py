"""python -m gemma_libtorch.diff: holds a checkpoint's model against its reference."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import torch

from .. import config, gemma3_model, model, recurrentgemma
from . import gemma_pytorch, griffin, huggingface
from .compare import compare
from .report import Report

_PROGRAM = "python -m gemma_libtorch.diff"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_PROGRAM}: {message}; see --help\n")


def _tolerance(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise ValueError
    return value


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=_PROGRAM,
        description="Holds a model against its reference, module by module, with the same weights "
        "and inputs. Exit status 0: nothing differs; 1: something does; 2: it could not be done.",
    )
    parser.add_argument(
        "--reference",
        required=True,
        metavar="DIR|transformers|griffin[:DIR]",
        help="a checkout of gemma_pytorch; transformers; or recurrentgemma, installed or a checkout",
    )
    parser.add_argument("--ckpt", required=True, type=Path, help="what load_weights takes")
    parser.add_argument("--variant", help="what the checkpoint is, where it does not say it")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="default: that of its config; float32 for RecurrentGemma",
    )
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--numerics", choices=("exact", "fast"), default="exact")
    parser.add_argument("--prompt", default="The capital of France is", help="default: %(default)s")
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        help="the largest difference that is none, over the largest value of the reference's tensor",
    )
    parser.add_argument("--html", type=Path, help="also a page, with layers by positions")
    parser.add_argument("--json", type=Path, help="also every figure")
    return parser.parse_args(words)


def _tokenizer_of(checkpoint: Path) -> str | None:
    """The file beside the weights."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    found = [folder / name for name in ("tokenizer.model", "tokenizer.json")]
    return next((str(path) for path in found if path.is_file()), None)


def _gemma(args: argparse.Namespace) -> Any:
    if args.variant is None:
        found = config.GemmaConfig.from_pretrained(args.ckpt)
        found.dtype = args.dtype or found.dtype
    else:
        found = config.get_model_config(args.variant, args.dtype or "bfloat16")
        found.tokenizer = _tokenizer_of(args.ckpt)
    is_multimodal = found.vision_config is not None
    cls = gemma3_model.Gemma3ForMultimodalLM if is_multimodal else model.GemmaForCausalLM
    previous = torch.get_default_dtype()
    torch.set_default_dtype(found.get_dtype())
    try:
        return cls(found)
    finally:
        torch.set_default_dtype(previous)


def _griffin(args: argparse.Namespace) -> Any:
    if args.numerics == "fast":
        raise ValueError(
            "--numerics fast: modules of RecurrentGemma compute exactly; only an Engine is fast"
        )
    if args.variant is not None:
        raise ValueError(f"--variant {args.variant}: files of RecurrentGemma say what they are")
    found = recurrentgemma.GriffinConfig.from_pretrained(args.ckpt)
    made = recurrentgemma.Griffin(found, dtype=getattr(torch, args.dtype or "float32"))
    tokenizer = _tokenizer_of(args.ckpt)
    if tokenizer is not None:
        made.set_tokenizer(tokenizer)
    return made


def _models(args: argparse.Namespace) -> tuple[Any, Any, str]:
    """Ours, the reference, and what that is, with the loader that read its weights."""
    name, _, folder = args.reference.partition(":")
    reference: Any
    if name == "griffin":
        reference, package = griffin, griffin.package_of(Path(folder) if folder else None)
    elif args.reference == "transformers":
        reference, package = huggingface, huggingface.package_of()
    else:
        reference, package = gemma_pytorch, gemma_pytorch.package_of(Path(args.reference))
    ours = _griffin(args) if name == "griffin" else _gemma(args)
    ours.load_weights(args.ckpt)
    theirs, loader = reference.load(package, ours, args.ckpt)
    release = getattr(package, "__version__", "")
    return ours, theirs, f"{args.reference} {release}".strip() + f", weights by {loader}"


def _word(tokenizer: Any, token: int) -> str:
    return "<bos>" if token == tokenizer.bos_id else tokenizer.decode([token]) or str(token)


def _compared(args: argparse.Namespace) -> Report:
    ours, theirs, reference = _models(args)
    ours.to(args.device)
    theirs.to(args.device)
    ours.set_numerics(args.numerics)
    ids = ours.tokenizer.encode(args.prompt)
    dtype = str(next(iter(ours.parameters())).dtype).removeprefix("torch.")
    return compare(
        ours,
        theirs,
        torch.tensor([ids], device=args.device),
        tolerance=args.tolerance,
        tokens=[_word(ours.tokenizer, token) for token in ids],
        facts={
            "checkpoint": str(args.ckpt),
            "reference": reference,
            "numerics": f"{args.numerics}, {dtype}, {args.device}, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "prompt": f"{args.prompt!r}, {len(ids)} tokens",
        },
    )


def main(words: list[str] | None = None) -> int:
    """The exit status."""
    args = _arguments(words)
    try:
        for path in (args.html, args.json):
            if path is not None and not path.absolute().parent.is_dir():
                raise FileNotFoundError(f"{path}: no such folder")
        report = _compared(args)
        print(report.as_text())
        if args.html is not None:
            args.html.write_text(report.as_html(), encoding="utf-8")
        if args.json is not None:
            args.json.write_text(report.as_json(), encoding="utf-8")
    except (ValueError, RuntimeError, OSError) as error:
        first = [line.strip() for line in str(error).splitlines()[:2]]  # torch's second says what.
        print(f"{_PROGRAM}: {' '.join(first)}", file=sys.stderr)
        return 2
    # The reference's own: Python's status for it would say that something differs.
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return 2
    return report.status


if __name__ == "__main__":
    sys.exit(main())
