"""`swift deploy`: a model behind an OpenAI-compatible server.

The socket listens before the model is loaded: /health says `loading` until then. Everything of HTTP stands in
`swift.infer_engine.server`; here are the arguments, the model and the adapters.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from swift.arguments.deploy import named
from swift.core.errors import SwiftError
from swift.core.log import get_logger
from swift.pipelines.base import SwiftPipeline, quiet_libraries

logger = get_logger()

LOCAL, EVERYWHERE = '127.0.0.1', '0.0.0.0'


def deploy_main(args: Any = None) -> None:
    """Serve until SIGTERM or SIGINT. `args`: None (sys.argv), a list of words, a mapping, or DeployArguments."""
    SwiftDeploy(args).main()


def deploy(
    model_path: str | None = None,
    infer_backend: str = 'transformers',
    device: str | None = None,
    *,
    local_only: bool = True,
    enable_ssl: bool = False,
    port: int = 8000,
    **flags: Any,
) -> None:
    """Serve a model, or a checkpoint with an adapter, until the process is told to end.

    `device`: `cpu`, `cuda:0`, …; None: the best there is. `flags` are those of `swift deploy`.
    """
    SwiftDeploy(_flags(model_path, infer_backend, device, local_only, enable_ssl, port, flags)).main()


@contextmanager
def run_deploy(
    model_path: str | None = None,
    infer_backend: str = 'transformers',
    device: str | None = None,
    *,
    local_only: bool = True,
    enable_ssl: bool = False,
    port: int = 0,
    **flags: Any,
) -> Iterator[Any]:
    """The same in the background, while a block runs: `with run_deploy('tiny') as server: … server.url`. Port 0: a free one."""
    pipeline = SwiftDeploy(_flags(model_path, infer_backend, device, local_only, enable_ssl, port, flags))
    with pipeline.background() as server:
        yield server


def _flags(
    model: str | None, backend: str, device: str | None, local_only: bool, enable_ssl: bool, port: int, flags: dict[str, Any]
) -> dict[str, Any]:
    given = {'model': model, 'infer_backend': backend, 'device_map': device, 'local_only': local_only, 'enable_ssl': enable_ssl, 'port': port}
    return {**{name: value for name, value in given.items() if value is not None}, **flags}


def flags_of_deploy(args: Any) -> dict[str, Any]:
    """The flags of `swift deploy` that serve the model of another command's arguments: those that were given; a checkpoint says the rest."""
    from swift.arguments.commands import CLASSES

    known = {field.name for field in fields(CLASSES['deploy'])}
    given = {name for name, source in args.sources.items() if source != 'derived' and not source.startswith('args.json of ')}
    return {name: getattr(args, name) for name in {'model', 'adapters', *given} & known}


class SwiftDeploy(SwiftPipeline):
    """The pipeline of `swift deploy`. `served` is what the server answers with, `server` listens from the start."""

    command = 'deploy'

    def __init__(self, args: Any = None):
        super().__init__(args)
        args = self.args
        logger.getChild('server').setLevel({'trace': 'DEBUG'}.get(args.log_level, args.log_level.upper()))
        from swift.infer_engine.server import Server

        self.served = _served(args)
        key, certificate = args.ssl_keyfile, args.ssl_certfile
        if args.enable_ssl and not certificate:
            from swift.infer_engine.server.certificate import self_signed

            key, certificate = self_signed()
        host = args.host or (LOCAL if args.local_only else EVERYWHERE)
        self.server = Server(self.served, host=host, port=args.port, keyfile=key, certfile=certificate, log_level='warning')

    def run(self) -> None:
        """Answer until a signal, or until the model turns out not to load."""
        loading = threading.Thread(target=self._load, name='swift-loading', daemon=True)
        loading.start()
        self.server.run(signals=True, log_interval=self.args.log_interval)
        if loading.is_alive():  # told to end before the model was there; its thread can't be stopped
            sys.stderr.flush()
            os._exit(0)

    @contextmanager
    def background(self) -> Iterator[Any]:
        """The loaded server in a thread of its own, until the block is left."""
        from swift.infer_engine.server.run import in_background

        with quiet_libraries():
            self._open()
        with in_background(self.server):
            yield self.server

    def _load(self) -> None:
        try:
            with quiet_libraries():
                self._open()
            self.server.settle()
            names = ', '.join(model.name for model in self.served.models)
            logger.info('serving %s at %s', names, self.server.url)
        except BaseException as error:
            self.server.fail(error)

    def _open(self) -> None:
        """Load the model, and ask it and every adapter once, so that the first request finds everything in place."""
        from swift.infer_engine.server.scoring import ScoreQueue
        from swift.pipelines.infer import build_engine, build_scorer

        args, served = _own(self.args), self.served
        if args.infer_backend == 'transformers':
            _import_packages()
        scorer = build_scorer(args)
        if scorer is not None:
            if len(served.models) > 1:
                raise SwiftError('several adapters are served of models that generate only;', 'give one of them as --adapters path')
            served.scores = ScoreQueue(scorer.engine, scorer.task, scorer.tokenizer)
            return
        engine = build_engine(args)
        _warm(engine, [model.adapter for model in served.models])
        served.engine = engine


def _import_packages() -> None:
    """What every model here needs, with nobody looking for garbage meanwhile: there is none, and the looking takes a quarter of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        import transformers.modeling_utils  # noqa: F401
    finally:
        if collecting:
            gc.enable()


def _warm(engine: Any, adapters: list[Any]) -> None:
    from swift.core.types import Prompt
    from swift.infer_engine.protocol import RequestConfig

    config = RequestConfig(max_tokens=1, temperature=0.0, seed=0)
    ids = engine.tokenizer.encode('1', add_special_tokens=False) or [0]
    for found in engine.generate([Prompt(list(ids))] * len(adapters), [config] * len(adapters), adapters):
        if isinstance(found, SwiftError):
            raise found


def _served(args: Any) -> Any:
    """What the flags say about the server; the model is not there yet."""
    from swift.infer_engine.protocol import AdapterRequest, RequestConfig
    from swift.infer_engine.server import Limits, Served, ServedModel

    root = next((path for name, path in map(named, args.adapters) if name is None), args.model)
    name = args.served_model_name or _short(root if args.merge_lora or not _is_step(root) else args.model) or 'model'
    models = [ServedModel(name, root)]
    for adapter, path in map(named, args.adapters):
        if adapter is not None:
            models.append(ServedModel(adapter, path, AdapterRequest(adapter, path)))
    usual = RequestConfig(
        max_tokens=args.max_new_tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p,
        repetition_penalty=args.repetition_penalty, num_beams=args.num_beams, stop=args.stop_words or None,
    )  # fmt: skip
    limits = Limits(
        running=args.max_batch_size, waiting=args.max_queue, body=args.max_request_size << 20, seconds=args.request_timeout or None,
        logprobs=args.max_logprobs,
    )  # fmt: skip
    return Served(
        models, _aliases(args, name), usual, limits, api_key=args.api_key, owned_by=args.owned_by, media_root=args.allowed_local_media_path,
        media_hosts=args.allowed_media_domains, result_path=args.result_path, verbose=args.verbose,
    )  # fmt: skip


def _aliases(args: Any, name: str) -> list[str]:
    """Other names that requests may use for the model: as it was given, and the 2.x name of a checkpoint."""
    given = [args.model, args.sources.get('model', '').partition(', by --model_type ')[2]]
    return [other for other in given if other and other != name] if not args.served_model_name else []


def _short(path: str | None) -> str:
    return os.path.basename(os.path.normpath(path)) if path else ''


def _is_step(path: str | None) -> bool:
    """Whether a path ends in checkpoint-N, which names nothing."""
    return _short(path).startswith('checkpoint-')


def _own(args: Any) -> Any:
    """The arguments of the model itself: adapters that requests choose by name are put on when they are first asked for."""
    from swift.arguments import Facts
    from swift.arguments.derive import settle

    own = [path for name, path in map(named, args.adapters) if name is None]
    if own == args.adapters:
        return args
    given = {name: (getattr(args, name), source) for name, source in args.sources.items() if source != 'derived'}
    given['adapters'] = (own, given['adapters'][1])
    return settle(type(args), args.command, given, Facts())
