# Two processes share every batch (on CPUs through gloo, on GPUs through nccl): 2 x 4 rows are the same as 1 x 8.
NPROC_PER_NODE=2 swift sft \
    --model tiny \
    --dataset examples/data/chat.jsonl \
    --per_device_train_batch_size 4 \
    --max_steps 10 \
    --learning_rate 1e-3 \
    --add_version false \
    --output_dir output/ddp
