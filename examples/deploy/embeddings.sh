# Vectors of texts (after infer/embeddings.sh, which trains the model in output/infer_embeddings). From another shell:
#   curl http://127.0.0.1:8000/v1/embeddings -H 'Content-Type: application/json' -d '{"model": "tiny", "input": ["3 + 4", "seven"]}'
swift deploy \
    --adapters output/infer_embeddings \
    --local_only true \
    --port 8000
