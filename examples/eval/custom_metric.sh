# Metrics of one's own, beside a built-in one.
swift eval \
    --model tiny \
    --eval_dataset qa:examples/data/arithmetic_heldout.jsonl \
    --eval_metrics accuracy near lengths \
    --external_plugins examples/eval/custom_metric.py \
    --eval_limit 50 \
    --max_new_tokens 32
