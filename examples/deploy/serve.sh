# The built-in model behind an OpenAI-compatible server, for this machine only; Ctrl-C ends it. Ask with ask.sh or client.py.
swift deploy \
    --model tiny \
    --local_only true \
    --port 8000 \
    --max_new_tokens 256
