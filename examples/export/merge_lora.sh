# Put the adapter of train/lora_sft.sh into the weights. `swift merge-lora` is the short form.
swift export \
    --adapters output/lora \
    --merge_lora true \
    --output_dir output/lora-merged \
    --exist_ok true
