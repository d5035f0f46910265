# Right sums instead of wrong ones, without a reference model.
swift rlhf \
    --rlhf_type orpo \
    --model tiny \
    --dataset examples/data/preference.jsonl \
    --val_dataset examples/data/preference_heldout.jsonl \
    --num_train_epochs 1 \
    --per_device_train_batch_size 16 \
    --per_device_eval_batch_size 16 \
    --learning_rate 1e-3 \
    --warmup_ratio 0.05 \
    --logging_steps 10 \
    --add_version false \
    --output_dir output/orpo
