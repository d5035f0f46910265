"""Every documented import path: each public name can be imported, and `import swift` imports nothing heavy."""

import importlib
import subprocess
import sys

import pytest

FACES = ['swift', 'swift.llm', 'swift.plugin', 'swift.utils', 'swift.loss', 'swift.metrics', 'swift.callbacks', 'swift.optimizers',
         'swift.tuner_plugin', 'swift.arguments', 'swift.pipelines', 'swift.model', 'swift.template', 'swift.dataset', 'swift.tuners',
         'swift.infer_engine', 'swift.export', 'swift.rlhf_trainers', 'swift.trainers']  # fmt: skip


@pytest.mark.parametrize('face', FACES)
def test_every_name_of_a_face_exists(face):
    module = importlib.import_module(face)
    assert module.__all__ and sorted(module.__dir__()) == module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match='no attribute'):
        module.no_such_name  # noqa: B018


DOCUMENTED = [
    'from swift import sft_main, pretrain_main, infer_main, export_main',
    'from swift import Swift, LoRAConfig, get_model_list',
    'from swift import SftArguments, PretrainArguments, InferArguments, ExportArguments',
    'from swift import DatasetLoader, get_template, register_template, register_model, register_dataset, register_loss',
    'from swift import Trainer, TrainerCallback, EmbeddingTrainer, RerankerTrainer',
    'from swift import rlhf_main, SwiftRLHF, RLHFArguments',
    'from swift.pipelines import rlhf_main, pretrain_main, infer_main, SwiftRLHF',
    'from swift.arguments import RLHFArguments, PretrainArguments, SftArguments, InferArguments, ExportArguments',
    'from swift.llm import rlhf_main, RLHFArguments',
    'from swift.trainers import Trainer, TrainingArguments, EmbeddingTrainer, RerankerTrainer',
    'from swift.rlhf_trainers import DPOTrainer, ORPOTrainer, KTOTrainer, CPOTrainer, SimPOTrainer, RewardTrainer',
    'from swift.rlhf_trainers import DPOConfig, ORPOConfig, KTOConfig, CPOConfig, SimPOConfig, RewardConfig',
    'from swift import TransformersEngine, InferRequest, RequestConfig, AdapterRequest',
    'from swift.llm import sft_main, export_main, get_model_tokenizer',
    'from swift.pipelines import sft_main, SwiftPipeline, SwiftSft',
    'from swift.arguments import SftArguments, BaseArguments, parse_args',
    'from swift.model import register_model, ModelMeta, get_model_processor, MODEL_MAPPING, models_map',
    'from swift.template import register_template, Template, TemplateMeta, assistant_spans, templates_map',
    'from swift.dataset import load_dataset, DatasetLoader, AlpacaPreprocessor, MessagesPreprocessor',
    'from swift.tuners import Swift, LoRAConfig, tuners_map',
    'from swift.tuners.base import Tuner',
    'from swift.tuner_plugin import Tuner, tuners_map',
    'from swift.infer_engine import InferEngine, TransformersEngine, InferRequest, RequestConfig, AdapterRequest',
    'from swift.loss import loss_map, register_loss, pair_losses, register_pair_loss, MultiTaskLoss',
    'from swift.plugin import TaskRouter, MultiTaskLoss',
    'from swift import Evaluator',
    'from swift.metrics import MeanMetric, compute_acc, eval_metrics_map',
    'from swift.callbacks import callbacks_map',
    'from swift.optimizers import OptimizerCallback, optimizers_map',
    'from swift.utils import get_logger, append_to_jsonl, is_master, is_dist, get_model_parameter_info, seed_everything, plot_images',
    'from swift.utils import activate_parameters, find_all_linears, find_embedding, find_norm, freeze_parameters',
]


@pytest.mark.parametrize('line', DOCUMENTED)
def test_documented_imports(line):
    exec(line, {})


def test_import_of_the_package_is_light():
    code = "import sys, swift; print([m for m in ('torch', 'transformers', 'peft', 'datasets', 'numpy', 'yaml') if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == '[]'
