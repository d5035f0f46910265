# Which kind of question is it? Class names are read off the rows and kept in config.json.
swift sft \
    --model tiny \
    --task_type seq_cls \
    --dataset examples/data/classification.jsonl \
    --val_dataset examples/data/classification_heldout.jsonl \
    --max_steps 100 \
    --per_device_train_batch_size 8 \
    --learning_rate 2e-3 \
    --eval_steps 50 \
    --logging_steps 20 \
    --add_version false \
    --output_dir output/seq_cls

# The class of every held-out text with its probabilities, and how many are right.
swift infer \
    --adapters output/seq_cls \
    --val_dataset examples/data/classification_heldout.jsonl \
    --metric acc
