"""Engines beside transformers: a server that is there already, and vLLM, SGLang, LMDeploy."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ClientArgs:
    """The server behind `--infer_backend client`."""

    base_url: str | None = None
    """client: address of an OpenAI-compatible server, as http://127.0.0.1:8000/v1; --model is its name there (none: the first it lists)."""
    api_key: str | None = None
    """client: key of the server; None: the environment variable OPENAI_API_KEY."""
    client_timeout: float = 600.0
    """client: seconds without a byte after which a request fails."""
    client_retries: int = 4
    """client: further attempts when the server is busy, fails, or can't be reached."""


@dataclass
class BackendArgs:
    """Settings of vllm, sglang and lmdeploy; those that are no flag go into `…_engine_kwargs`."""

    engine_python: str | None = None
    """Python of the environment that holds vllm, sglang or lmdeploy, which then answers from a process of its own; None: this environment."""
    vllm_gpu_memory_utilization: float | None = None
    """vllm: share of the GPU memory that it takes; None: its own default."""
    vllm_tensor_parallel_size: int = 1
    """vllm: devices that share each layer."""
    vllm_pipeline_parallel_size: int = 1
    """vllm: devices that share the layers."""
    vllm_data_parallel_size: int = 1
    """vllm: copies of the model."""
    vllm_max_num_seqs: int | None = None
    """vllm: answers generated at once; None: its own default."""
    vllm_max_model_len: int | None = None
    """vllm: longest context; None: the model's."""
    vllm_max_lora_rank: int | None = None
    """vllm: largest rank of an adapter; None: that of the adapters given, at least 16."""
    vllm_enforce_eager: bool = False
    """vllm: no compiled graphs; starts faster."""
    vllm_disable_custom_all_reduce: bool = False
    """vllm: NCCL's own all-reduce."""
    vllm_enable_prefix_caching: bool | None = None
    """vllm: keep keys and values of shared beginnings; None: its own default."""
    vllm_quantization: str | None = None
    """vllm: how the weights are quantised; None: as the model says."""
    vllm_engine_kwargs: dict = field(default_factory=dict)
    """vllm: further engine arguments, as JSON."""
    sglang_tp_size: int = 1
    """sglang: devices that share each layer."""
    sglang_pp_size: int = 1
    """sglang: devices that share the layers."""
    sglang_dp_size: int = 1
    """sglang: copies of the model."""
    sglang_ep_size: int = 1
    """sglang: devices that share the experts."""
    sglang_context_length: int | None = None
    """sglang: longest context; None: the model's."""
    sglang_mem_fraction_static: float | None = None
    """sglang: share of the GPU memory for weights and cache; None: its own default."""
    sglang_disable_cuda_graph: bool = False
    """sglang: no CUDA graphs."""
    sglang_quantization: str | None = None
    """sglang: how the weights are quantised; None: as the model says."""
    sglang_kv_cache_dtype: str | None = None
    """sglang: type of the cache; None: its own default."""
    sglang_engine_kwargs: dict = field(default_factory=dict)
    """sglang: further server arguments, as JSON."""
    lmdeploy_tp: int = 1
    """lmdeploy: devices that share each layer."""
    lmdeploy_session_len: int | None = None
    """lmdeploy: longest context; None: the model's."""
    lmdeploy_cache_max_entry_count: float | None = None
    """lmdeploy: share of the free GPU memory for the cache; None: its own default."""
    lmdeploy_quant_policy: int | None = None
    """lmdeploy: bits of the cache, 4 or 8; None: not quantised."""
    lmdeploy_vision_batch_size: int | None = None
    """lmdeploy: pictures read at once; None: its own default."""
    lmdeploy_engine_kwargs: dict = field(default_factory=dict)
    """lmdeploy: further server arguments, as JSON."""


def engine_settings(args: BackendArgs) -> dict[str, object]:
    """What was set for the backend of these arguments, by the engine's own names; defaults are left to the engine."""
    prefix = f'{args.infer_backend}_'
    found = {}
    for name, spec in BackendArgs.__dataclass_fields__.items():
        if name.startswith(prefix) and not name.endswith('_engine_kwargs') and (value := getattr(args, name)) != spec.default:
            found[name.removeprefix(prefix)] = value
    return {**found, **getattr(args, f'{prefix}engine_kwargs')}
