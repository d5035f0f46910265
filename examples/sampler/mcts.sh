# A tree search over the tokens of each answer; steps of one token suit sums, lines suit worked answers.
swift sample \
    --sampler_type mcts \
    --model tiny \
    --dataset 'examples/data/arithmetic_heldout.jsonl#16' \
    --orm_model accuracy \
    --step_tokens 1 \
    --max_iterations 24 \
    --n_best_to_keep 1 \
    --output_file mcts.jsonl \
    --override_exist_file true
