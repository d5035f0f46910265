# Names, cities and numbers in short sentences: one class for every word.
swift sft \
    --model tiny \
    --task_type token_cls \
    --dataset examples/data/token_classification.jsonl \
    --val_dataset examples/data/token_classification_heldout.jsonl \
    --max_steps 100 \
    --per_device_train_batch_size 8 \
    --learning_rate 2e-3 \
    --eval_steps 50 \
    --logging_steps 20 \
    --add_version false \
    --output_dir output/token_cls

swift infer \
    --adapters output/token_cls \
    --val_dataset examples/data/token_classification_heldout.jsonl \
    --metric acc
