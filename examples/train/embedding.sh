# A question and the sum that answers it become near vectors; every other text of the step, and the listed wrong sums, stay away.
swift sft \
    --task_type embedding \
    --loss_type infonce \
    --infonce_temperature 0.05 \
    --model tiny \
    --dataset examples/data/embedding.jsonl \
    --val_dataset examples/data/embedding_heldout.jsonl \
    --num_train_epochs 2 \
    --per_device_train_batch_size 32 \
    --per_device_eval_batch_size 32 \
    --learning_rate 2e-3 \
    --warmup_ratio 0.05 \
    --logging_steps 10 \
    --add_version false \
    --output_dir output/embedding
