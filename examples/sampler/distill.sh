# Answers of another model behind a URL; only the right ones are kept. Start the server first, in another terminal:
#     swift deploy --model tiny --local_only true --port 8000
swift sample \
    --sampler_type distill \
    --model tiny \
    --engine_kwargs '{"base_url": "http://127.0.0.1:8000/v1"}' \
    --dataset 'examples/data/arithmetic_heldout.jsonl#50' \
    --temperature 0 \
    --orm_model accuracy \
    --output_file distilled.jsonl \
    --override_exist_file true
