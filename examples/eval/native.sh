# Sums that the model never saw: accuracy with its interval, task by task; the report has every answer.
swift eval \
    --model tiny \
    --eval_dataset examples/data/arithmetic_heldout.jsonl \
    --max_new_tokens 32
