# Talk to the model, word by word; `clear` forgets, `exit` ends.
swift infer \
    --model tiny \
    --stream true \
    --max_new_tokens 64
