# Eight answers to every sum; the right one becomes a row to train on, a wrong one stands beside it for dpo.
swift sample \
    --model tiny \
    --dataset examples/data/arithmetic_heldout.jsonl \
    --num_return_sequences 8 \
    --orm_model accuracy \
    --n_best_to_keep 1 \
    --output_file best_of_8.jsonl \
    --override_exist_file true
