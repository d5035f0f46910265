# A language model is asked whether the document answers; the logits of "yes" and "no" are the score.
swift sft \
    --task_type generative_reranker \
    --loss_type listwise_reranker \
    --model tiny \
    --dataset examples/data/reranker.jsonl \
    --val_dataset examples/data/reranker_heldout.jsonl \
    --max_negative_samples 2 \
    --max_steps 20 \
    --per_device_train_batch_size 4 \
    --per_device_eval_batch_size 16 \
    --learning_rate 2e-3 \
    --warmup_ratio 0.05 \
    --logging_steps 5 \
    --add_version false \
    --output_dir output/generative_reranker
