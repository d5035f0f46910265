# Continue on plain text, rows packed to 512 tokens.
swift pt \
    --model tiny \
    --tuner_type full \
    --torch_dtype float32 \
    --dataset examples/data/text.jsonl \
    --max_length 512 \
    --packing true \
    --num_train_epochs 2 \
    --per_device_train_batch_size 2 \
    --learning_rate 1e-4 \
    --add_version false \
    --output_dir output/pt
