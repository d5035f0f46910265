"""LMDeploy as a server of its own: its documented command line and OpenAI API. It needs a GPU, so it was not run where this was written."""

from __future__ import annotations

from swift.infer_engine.remote_hosted import HostedEngine


class LmdeployEngine(HostedEngine):
    """Answers by a server of LMDeploy that lives as long as this object. `settings`: flags of `lmdeploy serve api_server` (`tp`, …)."""

    package = 'lmdeploy'

    @staticmethod
    def command(directory: str, name: str, port: int, adapter: tuple[str, str] | None) -> list[str]:
        """`python -m lmdeploy serve api_server …`; adapters are for its PyTorch backend."""
        words = ['-m', 'lmdeploy', 'serve', 'api_server', directory, '--model-name', name, '--server-name', '127.0.0.1', '--server-port', str(port)]
        return words if adapter is None else [*words, '--backend', 'pytorch', '--adapters', f'{adapter[0]}={adapter[1]}']
