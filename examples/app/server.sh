# The same page in front of a server, which another terminal started: swift deploy --model tiny --port 8000 --local_only true
swift app \
    --base_url http://127.0.0.1:8000/v1 \
    --server_port 7860
