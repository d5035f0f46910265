swift sft \
    --model tiny \
    --dataset sums#200 \
    --external_plugins examples/custom/dataset.py \
    --per_device_train_batch_size 8 \
    --max_steps 10 \
    --add_version false \
    --output_dir output/custom_dataset
