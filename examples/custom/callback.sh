swift sft \
    --model tiny \
    --dataset examples/data/chat.jsonl \
    --external_plugins examples/custom/callback.py \
    --callbacks journal \
    --per_device_train_batch_size 8 \
    --max_steps 10 \
    --add_version false \
    --output_dir output/custom_callback
