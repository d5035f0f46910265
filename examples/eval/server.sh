# A server is asked by 16 requests at once: any that speaks OpenAI's API. Start this one first, in another terminal:
#     swift deploy --model tiny --local_only true --port 8000
swift eval \
    --eval_url http://127.0.0.1:8000/v1 \
    --eval_dataset examples/data/arithmetic_heldout.jsonl \
    --max_new_tokens 32
