#!/usr/bin/env bash
# Make tiny-chat from nothing: data, tokenizer, pre-training, two rounds of chat training, evaluation, packing.
# Usage: recipes/tiny_chat/train.sh [PYTHON] [WORK FOLDER]; about half an hour on one CPU core.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${1:-python3}
work=${2:-output/tiny_chat}
swift() { "$python" -m swift.cli.main "$@"; }

"$python" "$here/generate.py" --out "$work/data"
"$python" "$here/start.py" --data "$work/data" --out "$work/start"

swift pt \
    --model "$work/start" \
    --tuner_type full \
    --torch_dtype float32 \
    --bf16 true \
    --dataset "$work/data/pt.jsonl" \
    --packing true \
    --max_length 1024 \
    --per_device_train_batch_size 1 \
    --num_train_epochs 1 \
    --optimizer muon \
    --learning_rate 8e-3 \
    --weight_decay 0.05 \
    --lr_scheduler_type constant_with_warmup \
    --warmup_steps 50 \
    --logging_steps 50 \
    --save_strategy epoch \
    --save_only_model true \
    --add_version false \
    --output_dir "$work/pt"

swift sft \
    --model "$work/pt" \
    --tuner_type full \
    --torch_dtype float32 \
    --bf16 true \
    --dataset "$work/data/sft.jsonl" \
    --packing true \
    --max_length 1024 \
    --per_device_train_batch_size 1 \
    --num_train_epochs 1 \
    --optimizer muon \
    --learning_rate 8e-3 \
    --weight_decay 0.05 \
    --lr_scheduler_type linear \
    --warmup_steps 50 \
    --logging_steps 100 \
    --save_steps 500 \
    --save_total_limit 2 \
    --add_version false \
    --output_dir "$work/sft"

swift sft \
    --model "$work/sft" \
    --tuner_type full \
    --torch_dtype float32 \
    --bf16 true \
    --dataset "$work/data/last.jsonl" \
    --packing true \
    --max_length 1024 \
    --per_device_train_batch_size 1 \
    --num_train_epochs 1 \
    --optimizer muon \
    --learning_rate 2e-3 \
    --weight_decay 0.05 \
    --lr_scheduler_type linear \
    --warmup_steps 20 \
    --logging_steps 50 \
    --save_strategy epoch \
    --save_only_model true \
    --add_version false \
    --output_dir "$work/last"

"$python" "$here/evaluate.py" --model "$work/last" --data "$work/data/heldout.jsonl" --json "$work/accuracy.json"
"$python" "$here/pack.py" --model "$work/last" --start "$work/start"
