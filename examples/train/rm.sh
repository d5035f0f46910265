# A reward model: a head with one value instead of the vocabulary, which gives the better answer of a pair the higher score.
swift rlhf \
    --rlhf_type rm \
    --model tiny \
    --dataset examples/data/preference_shorter.jsonl \
    --val_dataset examples/data/preference_shorter_heldout.jsonl \
    --num_train_epochs 1 \
    --per_device_train_batch_size 16 \
    --per_device_eval_batch_size 32 \
    --learning_rate 1e-3 \
    --warmup_ratio 0.05 \
    --center_rewards_coefficient 0.01 \
    --logging_steps 10 \
    --add_version false \
    --output_dir output/rm
