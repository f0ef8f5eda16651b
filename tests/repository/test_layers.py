"""The layers of rillm: imports point down only, and the frontend half runs without torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rillm

PACKAGE = Path(rillm.__file__).parent

# From top to bottom. A unit may import from lines below its own, and from itself. `*` stands
# for every module in a folder that no longer name covers; the longest name wins.
LAYERS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"terminal", "formats_cli"},
    {"server", "localai", "bench"},
    {"chat_logprobs", "request_options", "tool_constraints"},
    {"output_formats"},
    {"streams"},
    {"choices"},
    {"vllm_plugin", "choice_parser"},
    {"parsers"},
    {"async_llm", "remote_llm", "llm"},
    {"remote_answer"},
    {"remote_stream", "embedding"},
    {"token_wire", "output_stream"},
    {"output_processor"},
    {"input_processor"},
    {"model_formats", "format_grammars"},
    {"text", "formats", "engine_args"},
    {"engine.client", "engine.core_process"},
    {"engine"},
    {"constraints"},
    {"models"},
    {"text.tokenizer_files", "text.pieces"},
    {"engine.config"},
    {"admission", "outputs", "sampling_params", "sse_reader", "http_client"},
    {"structured_outputs"},
    {"errors", "__init__"},
]
# The engine's client half, and all of the rest above the core, never reach the core's half.
CORE = {
    "engine.core",
    "engine.core_process",
    "engine.batch_builder",
    "engine.sampler",
    "engine.sampling_batch",
    "engine.filters",
    "engine.finishing",
    "engine.logprobs",
    "engine.scheduled_batch",
    "engine.grammars",
    "engine.scheduler",
    "engine.token_masks",
    "engine.sequence",
    "engine.block_pool",
    "engine.waiting",
}
NO_TORCH = [
    "rillm",
    "rillm.async_llm",
    "rillm.bench.command",
    "rillm.cli",
    "rillm.engine.client",
    "rillm.formats.registry",
    "rillm.output_formats",
    "rillm.remote_llm",
    "rillm.localai.run",
    "rillm.server.app",
    "rillm.server.run",
    "rillm.streams",
    "rillm.terminal",
    "rillm.text.tokenizer",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def layer_of(module: str) -> tuple[int, str]:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        unit = ".".join(parts[:length])
        for depth, layer in enumerate(LAYERS):
            if unit in layer:
                return depth, unit
    pytest.fail(f"{module} has no place in LAYERS")


def imports_of(path: Path) -> set[str]:
    """Modules of rillm that a file imports, wherever in the file it does so."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    known = modules()
    inside = {name.removeprefix("rillm.") for name in names if name.startswith("rillm.")}
    return {name for name in inside if name in known}


@pytest.mark.parametrize("module", [m for m in modules() if m != "__init__"])
def test_imports_point_down(module: str) -> None:
    depth, unit = layer_of(module)
    for imported in imports_of(modules()[module]):
        below, other = layer_of(imported)
        assert below > depth or other == unit, f"{module} imports {imported}"


def test_only_the_core_and_offline_use_reach_the_core() -> None:
    allowed = CORE | {"llm"}
    for module, path in modules().items():
        if module not in allowed:
            assert not imports_of(path) & CORE, module


def test_formats_use_the_standard_library_only() -> None:
    for path in (PACKAGE / "formats").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                root = name.split(".")[:2]
                assert root[0] in sys.stdlib_module_names or root == ["rillm", "formats"], path


@pytest.mark.parametrize("module", NO_TORCH)
def test_frontend_imports_without_torch(module: str) -> None:
    code = (
        f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


@pytest.mark.parametrize("module", modules())
def test_files_and_functions_are_short(module: str) -> None:
    source = modules()[module].read_text()
    assert source.count("\n") <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 70, f"{module}:{node.lineno} {node.name} has {lines} lines"
