# All flags from a file; flags on the command line win.
swift sft examples/yaml/lora.yaml --max_steps 5
