# A classifier with one output reads question and document together; every document is relevant or not.
swift sft \
    --task_type reranker \
    --loss_type pointwise_reranker \
    --model tiny \
    --dataset examples/data/reranker.jsonl \
    --val_dataset examples/data/reranker_heldout.jsonl \
    --num_train_epochs 1 \
    --per_device_train_batch_size 16 \
    --per_device_eval_batch_size 16 \
    --learning_rate 1e-3 \
    --warmup_ratio 0.05 \
    --logging_steps 5 \
    --add_version false \
    --output_dir output/reranker
