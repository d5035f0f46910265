# Answers to a file of questions, one row for each, in the same order.
swift infer \
    --model tiny \
    --val_dataset examples/data/arithmetic_heldout.jsonl \
    --max_batch_size 64 \
    --max_new_tokens 32 \
    --temperature 0 \
    --result_path output/answers.jsonl
