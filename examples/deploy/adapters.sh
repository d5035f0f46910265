# Two adapters beside their model, chosen by "model" in the request (after train/lora_sft.sh, which trains the one in output/lora).
# A JSON file {"name": "path", …} can stand in the place of name=path.
swift deploy \
    --model tiny \
    --adapters words=output/lora again=output/lora \
    --local_only true \
    --port 8000
