# A model learns to see: a vision tower of random weights and the built-in chat model learn to read written digits, in a minute or two.
# The last command asks about digits that it was never shown, and prints the share of right answers.
python recipes/tiny_vision/make.py --kind image --out output/tiny_vision

swift sft \
    --model output/tiny_vision \
    --dataset examples/data/digits.jsonl \
    --tuner_type full \
    --freeze_vit false \
    --freeze_aligner false \
    --per_device_train_batch_size 8 \
    --learning_rate 1e-3 \
    --warmup_ratio 0.05 \
    --num_train_epochs 6 \
    --logging_steps 50 \
    --save_strategy epoch \
    --save_total_limit 1 \
    --add_version false \
    --output_dir output/image

swift infer \
    --model output/image \
    --val_dataset examples/data/digits_heldout.jsonl \
    --max_batch_size 64 \
    --max_new_tokens 8 \
    --temperature 0 \
    --metric acc
