# Stop after ten steps, then go on: the second command needs no model and no data, and continues the very same run.
swift sft \
    --model tiny \
    --dataset examples/data/chat.jsonl \
    --per_device_train_batch_size 8 \
    --max_steps 10 \
    --save_steps 10 \
    --add_version false \
    --output_dir output/resumed

swift sft \
    --resume_from_checkpoint output/resumed \
    --max_steps 20
