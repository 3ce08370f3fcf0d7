"""Imports point down, nothing imports itself by a detour, and a vendor's words stay in its folder."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    "model", "store", "core", "aws", "images", "credentials", "rollout", "contexts", "web", "protocols", "admission",
    "opening", "demo", "tls", "follow", "upkeep", "sending", "outbox", "gauges", "doors", "application", "app", "cli",
)  # fmt: skip
FOR_ALL = frozenset({"sections", "settings", "log", "metrics", "tasks", "handshake"})
FOR_BROKER = frozenset({"model", "handshake"})
"""Both doors are entered by a TLS handshake in the same way; what does it knows nothing but the model."""
FILES = sorted([*(ROOT / "provisioning").rglob("*.py"), *(ROOT / "broker").rglob("*.py")])
VENDOR_WORDS = {
    "enos": r"\benos\b|productKey|deviceKey|deviceSecret|deviceSn|dpsSign|securemode|combine/|thing/|\bdps\b",
    "tencent": r"\btencent\b|\bx-tc-|registerType|\bpsk\b|\$gateway|\$shadow|register/dev\b",
    "ioto": r"\bioto\b|productToken|accountId|getCerts|getCreds|updateReport|provision/",
    "ublox": r"\bublox\b|ROTPublicUID|DeviceProfileUID|deviceProfileUID|LocalDPR|\bZTPV1\b|/ztp/|\buss/",
}
SHARED_WORDS = {
    r"productSecret|deviceName": {"enos", "tencent"},
    r"productId\b|device/register": {"tencent", "ioto"},
}
"""Words of several vendors: they may stand in the folder of each."""
MAY_NAME_A_VENDOR = (
    "provisioning/protocols/__init__.py",
    "provisioning/protocols/register.py",
    "provisioning/sections.py",
    "provisioning/settings.py",
    "provisioning/cli/",
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def imports(path: Path) -> frozenset[tuple[str, bool]]:
    """Our modules that a file imports, and whether it does so when it is loaded."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    tree = ast.parse(path.read_text("utf-8"))
    at_once = {id(node) for node in _without_functions(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            names = [each if (each := f"{module}.{alias.name}") in MODULES else module for alias in node.names]
        else:
            continue
        for name in names:
            if name in MODULES:
                yield name, id(node) in at_once


def _without_functions(tree: ast.AST) -> Iterator[ast.AST]:
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        left.extend(ast.iter_child_nodes(node))


def test_there_is_something_to_check() -> None:
    assert {"provisioning.app", "provisioning.store.database", "broker.listener"} <= MODULES.keys()
    assert ("provisioning.core.enrol", True) in imports(MODULES["provisioning.core.registry"])


def may_import(module: str, imported: str) -> bool:
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    its_package, _, its_rest = imported.partition(".")
    its_part = its_rest.partition(".")[0]
    if package == "broker":
        return its_package == "broker" or its_part in FOR_BROKER
    if its_package == "broker":
        return part in {"follow", "gauges", "doors", "app", "cli"}
    if part in FOR_BROKER:
        return its_part == "model"
    if part in {"", "__main__"} or its_part in FOR_ALL:
        return True
    if part in FOR_ALL:
        return its_part == "model"
    return FLOORS.index(its_part) <= FLOORS.index(part)


def test_imports_point_down() -> None:
    pairs = ((module, imported) for module, path in MODULES.items() for imported, _ in imports(path))
    wrong = [f"{module} imports {imported}, which stands above it" for module, imported in pairs
             if not may_import(module, imported)]  # fmt: skip
    assert not wrong


def test_an_import_that_points_up_is_found() -> None:
    """The search above would find what it is there for."""
    assert not may_import("provisioning.core.enrol", "provisioning.app")
    assert not may_import("broker.listener", "provisioning.core.login")
    assert may_import("provisioning.app", "broker.listener")


def test_nothing_imports_itself_by_a_detour() -> None:
    graph = {
        module: {name for name, at_once in imports(path) if at_once and name != module}
        for module, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # CycleError names the modules


def _sources(path: Path) -> Iterator[tuple[int, str]]:
    """Code and texts without comments and docstrings: these may quote a vendor's page."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        for name in ("id", "attr", "name", "arg", "value"):
            if isinstance(text := getattr(node, name, None), str):
                yield getattr(node, "lineno", 0), text


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def foreign_words(name: str) -> re.Pattern[str]:
    """The words that must not stand in a file."""
    here = next((vendor for vendor in VENDOR_WORDS if f"/protocols/{vendor}/" in f"/{name}"), "")
    patterns = [words for vendor, words in VENDOR_WORDS.items() if vendor != here]
    patterns += [words for words, vendors in SHARED_WORDS.items() if here not in vendors]
    return re.compile("|".join(patterns), re.IGNORECASE)


def spoken(path: Path) -> list[str]:
    """What a file says in the words of a vendor that is not its own."""
    name = str(path.relative_to(ROOT))
    if name.startswith(MAY_NAME_A_VENDOR):
        return []
    words = foreign_words(name)
    if not words.search(path.read_text("utf-8")):  # not even in a comment
        return []
    allowed: set[str] = set()
    if name == "provisioning/app.py":
        allowed = set(VENDOR_WORDS)  # the sections of the settings
    if name == "provisioning/log.py":
        allowed = {"dpssign", "psk"}  # names of secrets
    return [f"{name}:{line}: {text}" for line, text in _sources(path) if text not in allowed and words.search(text)]


def test_vendor_words_stay_in_their_folder() -> None:
    assert not [each for path in FILES for each in spoken(path)]


@pytest.mark.parametrize("vendor", VENDOR_WORDS)
def test_a_vendors_own_words_are_found(vendor: str) -> None:
    """The search above would find what it is there for."""
    words = foreign_words("provisioning/protocols/another/wire.py")
    assert [text for _, text in _sources(MODULES[f"provisioning.protocols.{vendor}.wire"]) if words.search(text)]
    assert not foreign_words(f"provisioning/protocols/{vendor}/wire.py").search(vendor)
