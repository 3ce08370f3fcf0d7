"""Imports point down, nothing imports itself by a detour, and a vendor's words stay in its folder."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    "model", "store", "core", "aws", "images", "credentials", "rollout", "contexts", "web", "protocols", "admission",
    "opening", "demo", "tls", "follow", "upkeep", "gauges", "app", "cli",
)  # fmt: skip
FOR_ALL = frozenset({"sections", "settings", "log", "metrics", "tasks", "handshake"})
FOR_BROKER = frozenset({"model", "handshake"})
"""Both doors are entered by a TLS handshake in the same way; what does it knows nothing but the model."""
FILES = sorted([*(ROOT / "provisioning").rglob("*.py"), *(ROOT / "broker").rglob("*.py")])
VENDOR_WORDS = {
    "enos": r"\benos\b|productKey|deviceKey|deviceSecret|deviceSn|dpsSign|securemode|combine/|thing/|\bdps\b",
    "tencent": r"\btencent\b|\bx-tc-|registerType|\bpsk\b|\$gateway|\$shadow|register/dev\b",
    "ioto": r"\bioto\b|productToken|accountId|getCerts|getCreds|updateReport|provision/",
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


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Our modules that a file imports, and whether it does so when it is loaded."""
    tree = ast.parse(path.read_text("utf-8"))
    at_once = {id(node) for statement in tree.body for node in _without_functions(statement)}
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


def _without_functions(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _without_functions(child)


def test_there_is_something_to_check() -> None:
    assert {"provisioning.app", "provisioning.store.database", "broker.listener"} <= MODULES.keys()
    assert ("provisioning.core.enrol", True) in set(imports(MODULES["provisioning.core.registry"]))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    for imported, _ in imports(MODULES[module]):
        its_package, _, its_rest = imported.partition(".")
        its_part = its_rest.partition(".")[0]
        if package == "broker":
            allowed = its_package == "broker" or its_part in FOR_BROKER
        elif its_package == "broker":
            allowed = part in {"follow", "gauges", "app", "cli"}
        elif part in FOR_BROKER:
            allowed = its_part == "model"
        elif part in {"", "__main__"} or its_part in FOR_ALL:
            allowed = True
        elif part in FOR_ALL:
            allowed = its_part == "model"
        else:
            allowed = FLOORS.index(its_part) <= FLOORS.index(part)
        assert allowed, f"{module} imports {imported}, which stands above it"


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_vendor_words_stay_in_their_folder(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if name.startswith(MAY_NAME_A_VENDOR):
        return
    words = foreign_words(name)
    found = [(line, text) for line, text in _sources(path) if words.search(text)]
    if name == "provisioning/app.py":
        found = [(line, text) for line, text in found if text not in VENDOR_WORDS]  # the sections of the settings
    if name == "provisioning/log.py":
        found = [(line, text) for line, text in found if text not in {"dpssign", "psk"}]  # names of secrets
    assert not found, f"{name} speaks a vendor's words: {found}"


@pytest.mark.parametrize("vendor", VENDOR_WORDS)
def test_a_vendors_own_words_are_found(vendor: str) -> None:
    """The search above would find what it is there for."""
    words = foreign_words("provisioning/protocols/another/wire.py")
    assert [text for _, text in _sources(MODULES[f"provisioning.protocols.{vendor}.wire"]) if words.search(text)]
    assert not foreign_words(f"provisioning/protocols/{vendor}/wire.py").search(vendor)
