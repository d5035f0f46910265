# All weights learn; a tenth of the rows is kept for evaluation.
swift sft \
    --model tiny \
    --tuner_type full \
    --torch_dtype float32 \
    --dataset examples/data/chat.jsonl examples/data/tools.jsonl examples/data/thinking.jsonl \
    --split_dataset_ratio 0.1 \
    --num_train_epochs 2 \
    --per_device_train_batch_size 8 \
    --learning_rate 2e-4 \
    --lr_scheduler_type cosine \
    --eval_steps 20 \
    --save_steps 20 \
    --save_total_limit 2 \
    --add_version false \
    --output_dir output/full
