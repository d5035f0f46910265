# Multiple choice by the likelihood of every choice, with two answered examples before each question.
swift eval \
    --model tiny \
    --eval_dataset examples/data/eval_choices.jsonl \
    --eval_mode likelihood \
    --num_shots 2
