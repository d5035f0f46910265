swift sft \
    --model tiny \
    --task_type seq_cls \
    --dataset examples/data/classification.jsonl \
    --per_device_train_batch_size 16 \
    --learning_rate 1e-3 \
    --max_steps 40 \
    --add_version false \
    --output_dir output/infer_scores
swift infer \
    --adapters output/infer_scores \
    --val_dataset examples/data/classification_heldout.jsonl \
    --metric acc
