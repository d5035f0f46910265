# Chat in the browser: http://127.0.0.1:7860. The page lets choose between the model and its adapters (see train/lora_sft.sh).
swift app \
    --model tiny \
    --server_port 7860 \
    --lang en \
    --max_new_tokens 256
