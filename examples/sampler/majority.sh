# Nobody knows the answer: what most of sixteen answers come to is kept.
swift sample \
    --model tiny \
    --dataset 'examples/data/arithmetic_heldout.jsonl#50' \
    --num_return_sequences 16 \
    --temperature 0.7 \
    --sample_select majority \
    --n_best_to_keep 1 \
    --output_file majority.jsonl \
    --override_exist_file true
