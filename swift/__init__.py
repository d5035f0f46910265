"""swift: Scalable lightWeight Infrastructure for Fine-Tuning.

    from swift import sft_main
    result = sft_main(['--model', 'tiny', '--dataset', 'data.jsonl'])

Names are imported when they are first used, so `import swift` is instant.
"""

from swift.core import stand_in
from swift.core.lazy import lazy_face

__version__ = '0.1.0'

_NAMES = {
    # commands
    'sft_main': 'swift.pipelines',
    'pretrain_main': 'swift.pipelines',
    'rlhf_main': 'swift.pipelines',
    'infer_main': 'swift.pipelines',
    'deploy_main': 'swift.pipelines',
    'deploy': 'swift.pipelines',
    'run_deploy': 'swift.pipelines',
    'eval_main': 'swift.pipelines',
    'sample_main': 'swift.pipelines',
    'export_main': 'swift.pipelines',
    'merge_lora_main': 'swift.pipelines',
    'plan_main': 'swift.pipelines',
    'preview_main': 'swift.pipelines',
    'verify_main': 'swift.pipelines',
    'doctor_main': 'swift.pipelines',
    'merge_lora': 'swift.pipelines',
    'Evaluator': 'swift.pipelines',
    'SwiftPipeline': 'swift.pipelines',
    'SwiftSft': 'swift.pipelines',
    'SwiftPretrain': 'swift.pipelines',
    'SwiftRLHF': 'swift.pipelines',
    'SwiftInfer': 'swift.pipelines',
    'SwiftEval': 'swift.pipelines',
    'SwiftSample': 'swift.pipelines',
    # arguments
    'SftArguments': 'swift.arguments',
    'PretrainArguments': 'swift.arguments',
    'RLHFArguments': 'swift.arguments',
    'InferArguments': 'swift.arguments',
    'DeployArguments': 'swift.arguments',
    'EvalArguments': 'swift.arguments',
    'SampleArguments': 'swift.arguments',
    'ExportArguments': 'swift.arguments',
    'BaseArguments': 'swift.arguments',
    'parse_args': 'swift.arguments',
    # models and tuners
    'Swift': 'swift.face',
    'LoRAConfig': 'swift.tuners',
    'LoraConfig': 'swift.tuners',
    'get_model_processor': 'swift.model',
    'get_model_tokenizer': 'swift.model',
    'get_model_list': 'swift.model',
    'register_model': 'swift.model',
    'ModelMeta': 'swift.model',
    # templates and data
    'get_template': 'swift.template',
    'register_template': 'swift.template',
    'TemplateMeta': 'swift.template',
    'load_dataset': 'swift.dataset',
    'register_dataset': 'swift.dataset',
    'DatasetLoader': 'swift.dataset',
    'MultiModalDataset': 'swift.dataset',
    # training
    'Trainer': 'swift.trainers.trainer',
    'EmbeddingTrainer': 'swift.pipelines.in_hand',
    'EmbeddingConfig': 'swift.pipelines.in_hand',
    'RerankerTrainer': 'swift.pipelines.in_hand',
    'RerankerConfig': 'swift.pipelines.in_hand',
    'TrainingArguments': 'transformers',
    'TrainerCallback': 'transformers',
    'register_loss': 'swift.objectives.custom',
    'register_pair_loss': 'swift.objectives.dpo_losses',
    # inference
    'TransformersEngine': 'swift.infer_engine',
    'InferEngine': 'swift.infer_engine',
    'InferRequest': 'swift.infer_engine',
    'RequestConfig': 'swift.infer_engine',
    'AdapterRequest': 'swift.infer_engine',
    'get_logger': 'swift.core.log',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
stand_in.install()
