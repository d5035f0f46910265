swift sft \
    --model tiny \
    --dataset examples/data/chat.jsonl#100 \
    --external_plugins examples/custom/template.py \
    --template questions \
    --per_device_train_batch_size 8 \
    --max_steps 10 \
    --add_version false \
    --output_dir output/custom_template
