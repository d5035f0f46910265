# A file of questions for a server, which another terminal started: swift deploy --model tiny --port 8000 --local_only true
swift infer \
    --base_url http://127.0.0.1:8000/v1 \
    --val_dataset examples/data/arithmetic_heldout.jsonl \
    --val_dataset_sample 20 \
    --temperature 0 \
    --max_new_tokens 16 \
    --metric acc
