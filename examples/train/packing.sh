# Samples are planned into full rows of 256 tokens in advance; each attends to itself only.
swift sft \
    --model tiny \
    --dataset examples/data/chat.jsonl \
    --packing true \
    --max_length 256 \
    --per_device_train_batch_size 2 \
    --max_steps 20 \
    --learning_rate 1e-3 \
    --add_version false \
    --output_dir output/packed
