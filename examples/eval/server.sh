# A server that is asked by 16 requests at once: swift deploy, or any other that speaks OpenAI's API.
swift deploy --model tiny --local_only true --port 8000 &
server=$!
trap 'kill $server' EXIT
until curl --silent --fail http://127.0.0.1:8000/health > /dev/null; do sleep 0.5; done
swift eval \
    --eval_url http://127.0.0.1:8000/v1 \
    --eval_dataset examples/data/arithmetic_heldout.jsonl \
    --max_new_tokens 32
