"""The stubs (.pyi) against the extension: every class, method, property, function, parameter and
default, in both directions. What the extension says of itself are the signatures that pybind11
writes at the head of each docstring.
"""

from __future__ import annotations

import ast
import collections
import enum
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gemma_libtorch
import module_instances
import pytest
import tiny
from gemma_libtorch import _C

PACKAGE = Path(gemma_libtorch.__file__).parent
STUBS = sorted(str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.pyi"))

# What every Python object or pybind11 class has, and typeshed's `object` declares.
OF_EVERY_OBJECT = {
    "__module__", "__doc__", "__repr__", "__getattr__", "__setattr__", "__dir__", "__new__",
    "__reduce__", "__qualname__", "__static_attributes__", "__firstlineno__", "__signature__",
    "__slotnames__",  # By copyreg, once copy.deepcopy has tried to copy one.
}  # fmt: skip


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Parameter(NamedTuple):
    name: str
    kind: str
    default: str | None
    optional: bool | None
    """Whether None is a value; None: not said."""


class Signature(NamedTuple):
    parameters: list[Parameter]
    returns: str | None


# --- reading signatures ---------------------------------------------------------------------------


def type_name(annotation: ast.expr | None) -> str | None:
    """A type without its modules and quotes; None for one that says nothing."""
    if annotation is None:
        return None
    text = re.sub(r"['\"]", "", ast.unparse(annotation))
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)
    return None if text in ("object", "Any") else text


def may_be_none(annotation: ast.expr | None) -> bool | None:
    text = type_name(annotation)
    return None if text is None else bool(re.search(r"\bNone\b|\bOptional\b", text))


def default_text(default: ast.expr | None) -> str | None:
    if default is None:
        return None
    try:
        value = ast.literal_eval(default)
    except ValueError:  # An enum's member: the last word of Architecture.GEMMA_1.
        return ast.unparse(default).rpartition(".")[2]
    return repr(list(value) if isinstance(value, tuple) else value)


def signature_of(function: ast.FunctionDef) -> Signature:
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    kinds = ["positional"] * len(args.posonlyargs) + ["any"] * len(args.args)
    rows = list(zip(positional, kinds, defaults, strict=True))
    if args.vararg:
        rows.append((args.vararg, "*", None))
    rows += [(arg, "keyword", default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)]
    if args.kwarg:
        rows.append((args.kwarg, "**", None))
    parameters = [
        Parameter(arg.arg, kind, default_text(default), may_be_none(arg.annotation))
        for arg, kind, default in rows
    ]
    return Signature(parameters, type_name(function.returns))


def signatures_in(doc: str) -> list[Signature]:
    """Of a docstring by pybind11: one, or those of overloads."""
    lines = [line for line in doc.splitlines() if re.match(r"(\d+\. )?\w*\(.*\) -> ", line)]
    if "Overloaded function." in doc:
        lines = [line for line in lines if line[0].isdigit()]
    else:
        lines = lines[:1]
    signatures = []
    for line in lines:
        text = re.sub(r"^(\d+\. )?\w*\(", "def f(", line)
        text = re.sub(r"<(\w+\.\w+): -?\w+>", r"\1", text)  # <Architecture.GEMMA_1: 1>
        (function,) = ast.parse(text + ": ...").body
        assert isinstance(function, ast.FunctionDef)
        signatures.append(signature_of(function))
    assert signatures, f"no signature in {doc!r}"
    return signatures


def covers(stub: ast.expr, real: ast.expr) -> bool:
    """Whether the stub's type is the real one, or says more: list[str] where pybind11 says list."""
    if isinstance(stub, ast.Subscript) and isinstance(real, ast.Subscript):
        return covers(stub.value, real.value) and covers(stub.slice, real.slice)
    if isinstance(stub, ast.Subscript):
        return covers(stub.value, real)
    if isinstance(stub, ast.BinOp) and isinstance(real, ast.BinOp):
        return covers(stub.left, real.left) and covers(stub.right, real.right)
    if isinstance(stub, ast.Tuple) and isinstance(real, ast.Tuple):
        return len(stub.elts) == len(real.elts) and all(map(covers, stub.elts, real.elts))
    if ast.unparse(stub) in TYPED_DICTS:
        return ast.unparse(real) == "dict"
    return ast.dump(stub) == ast.dump(real)


def same_type(stub: str | None, real: str | None) -> bool:
    if stub is None or real is None:
        return True
    return covers(ast.parse(stub, mode="eval").body, ast.parse(real, mode="eval").body)


def mismatch(stub: Signature, real: Signature, is_dunder: bool = False) -> str | None:
    """Why a stub's signature is not the real one; None if it is."""
    theirs = [parameter.name for parameter in real.parameters]
    if theirs[-2:] == ["args", "kwargs"]:  # The extension takes anything, and looks itself.
        return None
    ours = [parameter.name for parameter in stub.parameters]
    if ours != theirs if not is_dunder else len(ours) != len(theirs):
        return f"parameters are {theirs}, the stub says {ours}"
    for mine, other in zip(stub.parameters, real.parameters, strict=True):
        if mine.name == "self" or is_dunder:
            continue
        if mine.kind != other.kind:
            return f"{mine.name} is of kind {other.kind!r}, the stub says {mine.kind!r}"
        if mine.default != other.default:
            return f"{mine.name} = {other.default}, the stub says {mine.default}"
        if None not in (mine.optional, other.optional) and mine.optional != other.optional:
            return f"{mine.name} may be None: {other.optional}, the stub says {mine.optional}"
    if not same_type(stub.returns, real.returns):
        return f"returns {real.returns}, the stub says {stub.returns}"
    return None


# --- reading stubs --------------------------------------------------------------------------------


def tree_of(stub: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{stub}.pyi").read_text())


def module_of(stub: str) -> Any:
    return importlib.import_module("gemma_libtorch." + stub.replace("/", "."))


def classes_of(stub: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree_of(stub).body if isinstance(node, ast.ClassDef)}


def names_in(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What a class or module declares, and how: several times if overloaded or with a setter."""
    names: dict[str, list[ast.stmt]] = {}
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.setdefault(node.target.id, []).append(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names.setdefault(ast.unparse(target), []).append(node)
    return names


def decorators(node: ast.stmt) -> set[str]:
    found = node.decorator_list if isinstance(node, (*FUNCTIONS, ast.ClassDef)) else []
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in found}


def part_of(stub: str) -> Any:
    """Where the extension has the names of a module."""
    return _C._recurrentgemma if stub == "recurrentgemma" else _C


def real_class(stub: str, name: str) -> type:
    return getattr(module_of(stub), name) if hasattr(module_of(stub), name) else getattr(_C, name)


def is_module(cls: type) -> bool:
    return issubclass(cls, _C._NNModule)


def is_typed_dict(node: ast.ClassDef) -> bool:
    return "TypedDict" in map(ast.unparse, node.bases)


def is_named_tuple(node: ast.ClassDef) -> bool:
    return "NamedTuple" in map(ast.unparse, node.bases)


TYPED_DICTS = {
    name for stub in STUBS for name, node in classes_of(stub).items() if is_typed_dict(node)
}
ALL_CLASSES = [
    (stub, name)
    for stub in STUBS
    for name, node in classes_of(stub).items()
    if not is_typed_dict(node) and not is_named_tuple(node)
]
NAMED_TUPLES = [
    (stub, name)
    for stub in STUBS
    for name, node in classes_of(stub).items()
    if is_named_tuple(node)
]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stub", STUBS)
def test_a_stub_has_the_names_of_its_module(stub: str) -> None:
    module = module_of(stub)
    declared = {
        name
        for name, (node, *_) in names_in(tree_of(stub).body).items()
        if not name.startswith("_") and "type_check_only" not in decorators(node)
    }
    assert declared == set(module.__all__)
    part = part_of(stub)
    imported = {name for name, value in vars(module).items() if value is getattr(part, name, None)}
    assert imported == set(module.__all__), "imported from the extension, but not in __all__"


def test_every_module_has_a_stub_and_every_public_name_of_the_extension_a_module() -> None:
    modules = {
        str(path.relative_to(PACKAGE).with_suffix(""))
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("_")
    }
    # Those that are written in Python have their annotations in themselves.
    alone = ("nn", "transformer_lens")
    in_python = {n for n in modules if n in alone or n.startswith(("diff/", "lens/"))}
    assert modules - in_python == set(STUBS)
    for part in (_C, _C._recurrentgemma):
        stubs = [stub for stub in STUBS if part_of(stub) is part]
        exported = {name for stub in stubs for name in module_of(stub).__all__}
        exported |= {n for s, n in ALL_CLASSES if s in stubs and not n.startswith("_")}
        assert {name for name in vars(part) if not name.startswith("_")} == exported


def test_every_variant_has_its_function() -> None:
    config = gemma_libtorch.config
    variants = set(config.model_variants()) - {"vaultgemma-1b"}  # Not the reference's.
    functions = {f"get_config_for_{name.replace('-', '_')}" for name in variants}
    assert functions == {name for name in config.__all__ if name.startswith("get_config_for_")}


# --- functions ------------------------------------------------------------------------------------


def functions_of(stub: str) -> Iterator[ast.FunctionDef]:
    return (node for node in tree_of(stub).body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(
    ("stub", "name"), [(stub, node.name) for stub in STUBS for node in functions_of(stub)]
)
def test_a_function_is_as_its_stub_says(stub: str, name: str) -> None:
    (node,) = (node for node in functions_of(stub) if node.name == name)
    (real,) = signatures_in(getattr(module_of(stub), name).__doc__)
    assert mismatch(signature_of(node), real) is None


# --- classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stub", "name"), ALL_CLASSES)
def test_a_class_has_the_bases_that_its_stub_says(stub: str, name: str) -> None:
    bases = {base.__name__ for base in real_class(stub, name).__bases__}
    declared = {str(type_name(base)).partition("[")[0] for base in classes_of(stub)[name].bases}
    assert declared - {"Generic"} == bases - {"object", "pybind11_object"}


@pytest.mark.parametrize(("stub", "name"), ALL_CLASSES)
def test_a_class_has_the_members_that_its_stub_says(stub: str, name: str) -> None:
    cls, declared = real_class(stub, name), names_in(classes_of(stub)[name].body)
    if issubclass(cls, enum.Enum):
        values = {key: ast.literal_eval(node.value) for key, (node,) in declared.items()}
        assert values == {member.name: member.value for member in cls}
        return
    real = {
        member
        for member in vars(cls)
        if member not in OF_EVERY_OBJECT and not member.startswith(("_pybind11", "__pybind11"))
    }
    if not hasattr(cls.__init__, "__func__"):  # object's: it cannot be constructed.
        real.discard("__init__")
    # An alias such as __call__ = forward narrows what the base declares; tensors and children of a
    # module are attributes of its instances, which the test below looks at.
    inherited = {key for key, nodes in declared.items() if isinstance(nodes[0], ast.Assign)}
    parts = parts_of(stub, name) if is_module(cls) else set()
    assert set(declared) - inherited - parts == real
    assert all(hasattr(cls, key) for key in inherited)


def is_property(nodes: list[ast.stmt]) -> bool:
    return isinstance(nodes[0], ast.AnnAssign) or "property" in decorators(nodes[0])


def has_setter(nodes: list[ast.stmt]) -> bool:
    return isinstance(nodes[0], ast.AnnAssign) or any("setter" in decorators(n) for n in nodes)


def property_mismatch(nodes: list[ast.stmt], real: Any) -> str | None:
    if not isinstance(real, property):
        return None if isinstance(nodes[0], ast.AnnAssign) else "is no property"
    if has_setter(nodes) != (real.fset is not None):
        return f"can be set: {real.fset is not None}, the stub says {has_setter(nodes)}"
    node = nodes[0]
    annotation = node.annotation if isinstance(node, ast.AnnAssign) else node.returns  # type: ignore[attr-defined]
    (signature,) = signatures_in("f" + (real.fget.__doc__ or ""))
    declared = str(type_name(annotation))
    if hasattr(_C, str(signature.returns)):  # Of an empty holder pybind11 does not say: a test below.
        declared = declared.removesuffix(" | None")
    if not same_type(declared, signature.returns):
        return f"is {signature.returns}, the stub says {declared}"
    return None


def method_mismatch(nodes: list[ast.stmt], cls: type, key: str) -> str | None:
    is_static = "staticmethod" in decorators(nodes[0])
    if isinstance(vars(cls)[key], staticmethod) != is_static:
        return f"static: {not is_static}, the stub says {is_static}"
    is_dunder = key.startswith("__") and key != "__init__"
    reals = signatures_in(getattr(cls, key).__doc__)
    stubs = [signature_of(node) for node in nodes if isinstance(node, FUNCTIONS)]
    if len(stubs) > len(reals) == 1:  # Overloads of one function: each returns a part of its union.
        union = " | ".join(str(stub.returns) for stub in stubs)
        stubs = [stub._replace(returns=union) for stub in stubs]
    for stub in stubs:
        found = [mismatch(stub, real, is_dunder) for real in reals]
        if None not in found:
            return found[0]
    return None


@pytest.mark.parametrize(("stub", "name"), ALL_CLASSES)
def test_the_members_of_a_class_are_as_its_stub_says(stub: str, name: str) -> None:
    cls = real_class(stub, name)
    found = {}
    for key, nodes in names_in(classes_of(stub)[name].body).items():
        if key not in vars(cls) or isinstance(nodes[0], ast.Assign):
            continue
        if is_property(nodes):
            found[key] = property_mismatch(nodes, vars(cls)[key])
        else:
            found[key] = method_mismatch(nodes, cls, key)
    assert {key: why for key, why in found.items() if why} == {}


@pytest.mark.parametrize("cls", ["config/GemmaConfig", "siglip_vision/config/SiglipVisionModelConfig"])
def test_a_config_has_the_fields_and_defaults_that_its_stub_says(cls: str) -> None:
    stub, _, name = cls.rpartition("/")
    real = real_class(stub, name)
    (init,) = names_in(classes_of(stub)[name].body)["__init__"]
    assert isinstance(init, ast.FunctionDef)
    parameters = signature_of(init).parameters[1:]
    assert tuple(parameter.name for parameter in parameters) == real.__match_args__
    for parameter in parameters:
        value = getattr(real(), parameter.name)
        text = value.name if isinstance(value, enum.Enum) else repr(value)
        assert parameter.default == text, parameter.name


@pytest.mark.parametrize(("stub", "name"), NAMED_TUPLES)
def test_a_named_tuple_is_as_its_stub_says(stub: str, name: str) -> None:
    real: Any = real_class(stub, name)
    declared = names_in(classes_of(stub)[name].body)
    fields = {key: node for key, (node, *_) in declared.items() if isinstance(node, ast.AnnAssign)}
    assert tuple(fields) == real._fields
    defaults = {key: node.value for key, node in fields.items() if node.value is not None}
    assert {key: default_text(value) for key, value in defaults.items()} == {
        key: value.name if isinstance(value, enum.Enum) else repr(value)
        for key, value in real._field_defaults.items()
    }
    of_every_tuple = set(vars(collections.namedtuple("Empty", []))) | {
        "__module__", "__doc__", "__slotnames__"  # The last one by copyreg, once it was pickled.
    }  # fmt: skip
    assert set(vars(real)) - of_every_tuple == set(declared)
    for key in set(declared) - set(fields):
        (node,) = declared[key]
        assert isinstance(node, ast.FunctionDef)
        value = vars(real)[key]
        is_property = isinstance(value, property)
        assert is_property == ("property" in decorators(node)), key
        function = value.fget if is_property else getattr(real, key)
        (signature,) = signatures_in(function.__doc__)
        stubbed = signature_of(node)
        assert is_property or mismatch(stubbed, signature) is None, key
        assert same_type(stubbed.returns, signature.returns), key


# --- what instances have --------------------------------------------------------------------------


INSTANCES = module_instances.make()


def parts_of(stub: str, name: str) -> set[str]:
    """The tensors and children that the stub of this class declares: not those of its base."""
    of_instances = set()
    modules = (module for same in INSTANCES.values() for module in same)
    for module in filter(lambda module: isinstance(module, real_class(stub, name)), modules):
        of_instances |= {key for key, _ in module.named_parameters(recurse=False)}
        of_instances |= {key for key, _ in module.named_buffers(recurse=False)}
        of_instances |= {key for key, _ in module.named_children()}
    declared = set(names_in(classes_of(stub)[name].body))
    return (of_instances & declared) - set(vars(real_class(stub, name)))


@pytest.mark.parametrize(
    ("stub", "name"), [(s, n) for s, n in ALL_CLASSES if is_module(real_class(s, n))]
)
def test_the_parts_of_a_module_are_those_that_its_stub_says(stub: str, name: str) -> None:
    cls = real_class(stub, name)
    if name in ("_NNModule", "Module", "ModuleList", "EngineModel", "LanguageModel", "DecoderLayer"):
        assert name == "ModuleList" or cls not in INSTANCES  # Bases; a list's parts have numbers.
        return
    assert INSTANCES[cls], "no model here has one"
    declared: dict[str, list[ast.stmt]] = {}
    for s, n in ALL_CLASSES:
        if real_class(s, n) in cls.__mro__:
            declared |= names_in(classes_of(s)[n].body)
    for module in INSTANCES[cls]:
        children = dict(module.named_children())
        for key, part in [*children.items(), *module.named_parameters(recurse=False),
                          *module.named_buffers(recurse=False)]:  # fmt: skip
            assert key in declared, f"{name}.{key} is not in the stub"
            node = declared[key][0]
            annotation = node.returns if isinstance(node, FUNCTIONS) else node.annotation  # type: ignore[attr-defined]
            assert type(part).__name__ == re.split(r"\W", str(type_name(annotation)))[0]
    attributes = {key for module in INSTANCES[cls] for key in dir(module)}
    assert set(names_in(classes_of(stub)[name].body)) <= attributes


@pytest.mark.parametrize("cls", INSTANCES)
def test_a_part_that_may_be_none_is_none_in_some_model(cls: type) -> None:
    if cls is _C.ModuleList:
        return
    (body,) = (classes_of(s)[n].body for s, n in ALL_CLASSES if real_class(s, n) is cls)
    for key, (node, *_) in names_in(body).items():
        returns = node.returns if isinstance(node, FUNCTIONS) else None
        if "property" in decorators(node) and hasattr(_C, re.split(r"\W", str(type_name(returns)))[0]):
            some_are_none = any(getattr(module, key) is None for module in INSTANCES[cls])
            assert may_be_none(returns) == some_are_none, key


def test_processed_prompts_have_the_keys_that_their_stub_says() -> None:
    model = tiny.make_multimodal(gemma_libtorch)
    found = gemma_libtorch.gemma3_preprocessor.tokenize_raw_input(
        model.tokenizer, [["Hi"]], model.config, 1, "cpu"
    )
    declared = names_in(classes_of("gemma3_preprocessor")["_ProcessedPrompts"].body)
    assert set(found) == set(declared)


# --- statements that were false once --------------------------------------------------------------


def test_a_parameter_refuses_a_tensor_of_another_shape() -> None:
    linear = gemma_libtorch.model.Linear(3, 2, False)
    with pytest.raises(ValueError, match=r"'weight' is \[2, 3\], but a tensor of \[3, 2\]"):
        linear.weight = linear.weight.t()
