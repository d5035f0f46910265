# The adapter of train/lora_sft.sh; its model and settings are read from the run.
swift infer \
    --adapters output/lora \
    --val_dataset examples/data/new_words_ask.jsonl \
    --temperature 0 \
    --result_path output/new_words_answers.jsonl
