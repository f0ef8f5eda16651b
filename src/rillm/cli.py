"""The console command: `rillm serve`, `engine`, `frontend`, `localai`, `chat` and `formats`."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import sys
from typing import Annotated

from cyclopts import App, Parameter

from rillm import __version__
from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs, RemoteEngineArgs
from rillm.errors import ConfigError, RillmError
from rillm.formats_cli import app as formats_app
from rillm.localai.config import BackendConfig
from rillm.server.config import FrontendConfig, ListenConfig, ServerConfig
from rillm.server.protocol import ChatCompletionRequest
from rillm.server.run import run_engine, run_frontend, run_server
from rillm.terminal import chat_in_terminal

EXIT_ERROR = 1
EXIT_CONFIG = 2
EXIT_INTERRUPTED = 130

app = App(
    name="rillm", version=__version__, help="A streaming-first server for large language models."
)
app.command(formats_app)
app.command(
    "rillm.bench.command:app",
    name="bench",
    help="Measure an OpenAI-compatible server as a reader feels it.",
)


def main() -> None:
    """Run the command line; the entry point of the `rillm` script.

    Raises:
        SystemExit: always; 0 on success, 2 when a flag, a setting or the model is at fault.
    """
    try:
        app()
    except ConfigError as error:
        _complain(error)
        sys.exit(EXIT_CONFIG)
    except RillmError as error:
        _complain(error)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


@app.command
def serve(
    model: str | None = None,
    /,
    *,
    server: Annotated[ServerConfig | None, Parameter(name="*")] = None,
    engine: Annotated[AsyncEngineArgs | None, Parameter(name="*")] = None,
) -> None:
    """Serve a model over HTTP, as the OpenAI API does.

    Args:
        model: Directory or hub id of the model; the same as --model.
        server: Where to listen.
        engine: How to run the model.
    """
    _set_up_log()
    run_server(server or ServerConfig(), _with_model(engine, model))


@app.command(name="engine")
def serve_tokens(
    model: str | None = None,
    /,
    *,
    server: Annotated[ListenConfig | None, Parameter(name="*")] = None,
    engine: Annotated[AsyncEngineArgs | None, Parameter(name="*")] = None,
) -> None:
    """Serve only token ids in and out, for `rillm frontend` and others that make the text.

    Args:
        model: Directory or hub id of the model; the same as --model.
        server: Where to listen.
        engine: How to run the model.
    """
    _set_up_log()
    run_engine(server or ListenConfig(), _with_model(engine, model))


@app.command
def frontend(
    *,
    engines: Annotated[RemoteEngineArgs, Parameter(name="*")],
    server: Annotated[FrontendConfig | None, Parameter(name="*")] = None,
) -> None:
    """Serve a model whose tokens are made elsewhere: no weights here.

    Args:
        engines: Where the tokens come from.
        server: Where to listen.
    """
    _set_up_log()
    run_frontend(server or FrontendConfig(), engines)


@app.command
def localai(*, backend: Annotated[BackendConfig | None, Parameter(name="*")] = None) -> None:
    """Be a backend of LocalAI, which says over gRPC what model to load.

    Args:
        backend: Where to listen.
    """
    _set_up_log()
    try:
        run = importlib.import_module("rillm.localai.run")
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'rillm[localai]'") from error
    sys.exit(run.run_backend(backend or BackendConfig()))


@app.command
def chat(
    model: str | None = None,
    /,
    *,
    prompt: Annotated[str | None, Parameter(alias="-p")] = None,
    system: str | None = None,
    think: bool = False,
    temperature: float | None = None,
    max_tokens: int | None = None,
    engine: Annotated[AsyncEngineArgs | None, Parameter(name="*")] = None,
) -> None:
    """Talk to a model in the terminal. Ctrl-C stops an answer, Ctrl-D ends.

    Args:
        model: Directory or hub id of the model; the same as --model.
        prompt: Answer this and exit.
        system: What the model is told before the conversation.
        think: Let the model reason before it answers.
        temperature: 0 for the most probable answer; by default what the model recommends.
        max_tokens: Most tokens of one answer.
        engine: How to run the model.
    """
    settings = ChatCompletionRequest(
        messages=[{"role": "system", "content": system}] if system else [],
        stream=True,
        temperature=temperature,
        max_tokens=max_tokens,
        chat_template_kwargs={"enable_thinking": think},
    )
    llm = AsyncLLM.from_engine_args(_with_model(engine, model))
    try:
        chat_in_terminal(llm, settings, prompt)
    finally:
        llm.shutdown()


def _set_up_log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("uvicorn.error", "asyncio", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _with_model(engine: AsyncEngineArgs | None, model: str | None) -> AsyncEngineArgs:
    args = engine or AsyncEngineArgs()
    return args if model is None else dataclasses.replace(args, model=model)


def _complain(error: Exception) -> None:
    print(f"rillm: {error}", file=sys.stderr)
