"""One straight function per command: the only place where rooms meet."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        'sft_main': 'swift.pipelines.train:sft_main',
        'pretrain_main': 'swift.pipelines.train:pretrain_main',
        'rlhf_main': 'swift.pipelines.rlhf:rlhf_main',
        'SwiftSft': 'swift.pipelines.train:SwiftSft',
        'SwiftRLHF': 'swift.pipelines.rlhf:SwiftRLHF',
        'SwiftInfer': 'swift.pipelines.infer:SwiftInfer',
        'Evaluator': 'swift.pipelines.evaluator:Evaluator',
        'SwiftPretrain': 'swift.pipelines.train:SwiftPretrain',
        'SwiftPipeline': 'swift.pipelines.base:SwiftPipeline',
        'infer_main': 'swift.pipelines.infer:infer_main',
        'deploy_main': 'swift.pipelines.deploy:deploy_main',
        'deploy': 'swift.pipelines.deploy:deploy',
        'run_deploy': 'swift.pipelines.deploy:run_deploy',
        'SwiftDeploy': 'swift.pipelines.deploy:SwiftDeploy',
        'eval_main': 'swift.pipelines.eval:eval_main',
        'SwiftEval': 'swift.pipelines.eval:SwiftEval',
        'sample_main': 'swift.pipelines.sample:sample_main',
        'SwiftSample': 'swift.pipelines.sample:SwiftSample',
        'export_main': 'swift.pipelines.export:export_main',
        'merge_lora_main': 'swift.pipelines.export:merge_lora_main',
        'merge_lora': 'swift.export.merge:merge_lora',
        'app_main': 'swift.ui.app:app_main',
        'plan_main': 'swift.pipelines.plan:plan_main',
        'preview_main': 'swift.pipelines.preview:preview_main',
        'verify_main': 'swift.pipelines.verify:verify_main',
        'doctor_main': 'swift.pipelines.doctor:doctor_main',
    },
)
