"""SGLang as a server of its own: its documented command line and OpenAI API. It needs a GPU, so it was not run where this was written."""

from __future__ import annotations

from swift.infer_engine.remote_hosted import HostedEngine


class SglangEngine(HostedEngine):
    """Answers by a server of SGLang that lives as long as this object. `settings`: flags of `sglang.launch_server` (`tp_size`, …)."""

    package = 'sglang'

    @staticmethod
    def command(directory: str, name: str, port: int, adapter: tuple[str, str] | None) -> list[str]:
        """`python -m sglang.launch_server …`."""
        words = ['-m', 'sglang.launch_server', '--model-path', directory, '--served-model-name', name, '--host', '127.0.0.1', '--port', str(port)]
        return words if adapter is None else [*words, '--enable-lora', '--lora-paths', f'{adapter[0]}={adapter[1]}']
