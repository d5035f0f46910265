# Answers judged one by one, right (label true) or wrong (label false): no pairs are needed.
swift rlhf \
    --rlhf_type kto \
    --model tiny \
    --dataset examples/data/kto.jsonl \
    --split_dataset_ratio 0.1 \
    --num_train_epochs 1 \
    --per_device_train_batch_size 16 \
    --per_device_eval_batch_size 32 \
    --learning_rate 2e-3 \
    --warmup_ratio 0.05 \
    --logging_steps 10 \
    --add_version false \
    --output_dir output/kto
