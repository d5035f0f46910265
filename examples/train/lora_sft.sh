# Teach the built-in model with LoRA. Any local folder or hub id takes the place of `tiny`.
swift sft \
    --model tiny \
    --tuner_type lora \
    --lora_rank 16 \
    --dataset examples/data/new_words.jsonl \
    --num_train_epochs 12 \
    --per_device_train_batch_size 8 \
    --learning_rate 4e-3 \
    --warmup_ratio 0.05 \
    --logging_steps 10 \
    --add_version false \
    --output_dir output/lora
